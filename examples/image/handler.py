"""A thumbnail of the picture in the body, made by Pillow: POST /?size=128."""

from io import BytesIO

from PIL import Image, ImageOps

from watchdog_app import HTTPError

MAX_PIXELS = 40_000_000  # 120 MB once decoded; a small file can claim to be far larger


def handle(event, context):
    size = event.query.get("size", 128, type=int)
    if not 16 <= size <= 1024:
        raise HTTPError(400, {"error": "size: a number of pixels from 16 to 1024"})
    try:
        picture = Image.open(event.stream, formats=("JPEG", "PNG", "WEBP", "GIF"))
        if picture.width * picture.height > MAX_PIXELS:
            raise HTTPError(413, {"error": f"the picture has more than {MAX_PIXELS} pixels"})
        return thumbnail(picture, size), {"Content-Type": "image/png"}
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for a picture that is none, or broken
        raise HTTPError(415, {"error": "the body is a picture: JPEG, PNG, WebP or GIF"}) from None
    except Image.DecompressionBombError as error:
        raise HTTPError(413, {"error": str(error)}) from None


def thumbnail(picture, size):
    """Return a PNG that fits into a square of `size` pixels, the right way up."""
    picture.draft("RGB", (size, size))  # a JPEG is decoded no larger than need be
    picture = ImageOps.exif_transpose(picture).convert("RGBA")
    picture.thumbnail((size, size))
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
