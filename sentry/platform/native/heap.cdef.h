void heap_trim(void);
