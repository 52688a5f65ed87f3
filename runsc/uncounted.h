/* Objects of CPython whose references are not counted. */
#pragma once
#include <stdint.h>

int rs_count_no_more(uint64_t list, uint64_t code, uint64_t frame, uint64_t kinds);
