"""Root file systems from images: folders, archives, and what engines have."""

from runsc.images.documents import ImageConfig
from runsc.images.errors import ImageError
from runsc.images.roots import ImageRoot, root_of

__all__ = ["ImageConfig", "ImageError", "ImageRoot", "root_of"]
