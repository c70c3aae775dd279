from io import BytesIO

import pytest

pytest.importorskip("PIL", reason="Pillow is not installed: pip install -r requirements.txt")

from PIL import Image

import handler
from handler import handle
from watchdog_app import invoke


def picture(size=(640, 320), kind="JPEG", **options):
    file = BytesIO()
    Image.new("RGB", size, "orange").save(file, kind, **options)
    return file.getvalue()


def opened(answer):
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    return Image.open(BytesIO(answer.body))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_picture_becomes_a_thumbnail(kind):
    small = opened(invoke(handle, "POST", "/?size=64", body=picture(kind=kind)))
    assert (small.format, small.size) == ("PNG", (64, 32))
    red, green, blue, _ = small.getpixel((30, 15))
    assert red > 240 > green > 150 > 20 > blue


def test_picture_is_turned_as_its_camera_was_held():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    assert opened(invoke(handle, "POST", body=picture(exif=exif))).size == (64, 128)


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", picture(kind="PNG")[:100], picture(kind="BMP")],
    ids=["empty", "text", "cut", "another format"],
)
def test_other_body_is_refused(body):
    assert invoke(handle, "POST", body=body).status == 415


def test_picture_with_too_many_pixels_is_refused(monkeypatch):
    monkeypatch.setattr(handler, "MAX_PIXELS", 1000)
    assert invoke(handle, "POST", body=picture()).status == 413


def test_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert invoke(handle, "POST", body=picture()).status == 413


@pytest.mark.parametrize("size", ["0", "1025"])
def test_other_size_is_refused(size):
    assert invoke(handle, "POST", f"/?size={size}", body=picture()).status == 400
