import struct
import sys
from fractions import Fraction

import numpy as np
import pytest
from echo_layouts import save_video
from PIL import Image

from nnunet_temporal.datasets.video_io import coloured_share, read_frames, read_header
from nnunet_temporal.errors import InputError

pytest.importorskip("av")

FRAMES = np.random.default_rng(0).integers(0, 256, (7, 16, 24), dtype=np.uint8)
LOSSLESS = {".avi": ("ffv1", "gray"), ".mp4": ("png", "gray")}


def save_gif(path, frames, duration_ms):
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration_ms)
    return path


def save(path, frames=FRAMES, rate=50):
    if path.suffix == ".gif":
        return save_gif(path, frames, 1000 // rate)
    return save_video(path, frames, rate, *LOSSLESS[path.suffix])


@pytest.fixture(params=[".avi", ".mp4", ".gif"])
def video(tmp_path, request):
    return save(tmp_path / f"movie{request.param}")


def test_every_frame_is_read_exactly(video):
    frames = read_frames(video)
    assert frames.dtype == np.uint8 and np.array_equal(frames, FRAMES)


def test_the_header_counts_frames_and_knows_their_interval_but_no_pixel_spacing(video):
    header = read_header(video)
    assert (header.path, header.shape) == (video, (7, 16, 24))
    assert header.spacing.frame_s == pytest.approx(0.02) and not header.spacing.pixel_known


@pytest.mark.parametrize("rate", [24, 30, 60])
def test_an_interval_that_the_clock_of_the_file_rounds_is_constant(tmp_path, rate):
    assert read_header(save(tmp_path / "a.mp4", rate=rate)).spacing.frame_s == pytest.approx(1 / rate, rel=0.01)


def test_intervals_that_gif_rounds_to_hundredths_are_constant(tmp_path):
    header = read_header(save_gif(tmp_path / "a.gif", FRAMES, [30, 30, 40, 30, 30, 40, 30]))
    assert header.spacing.frame_s == pytest.approx(0.2 / 6)


def test_a_pause_between_frames_leaves_the_interval_unknown(tmp_path):
    header = read_header(save_gif(tmp_path / "a.gif", FRAMES, [40, 40, 40, 80, 40, 40, 40]))
    assert header.spacing.frame_s is None and header.shape[0] == 7


def test_one_frame_has_no_interval(tmp_path):
    header = read_header(save(tmp_path / "a.avi", FRAMES[:1]))
    assert header.shape == (1, 16, 24) and header.spacing.frame_s is None


def test_frames_are_counted_by_decoding_and_not_by_the_header(tmp_path):
    path = save(tmp_path / "a.avi")
    content = bytearray(path.read_bytes())
    content[48:52] = struct.pack("<I", 99)  # number of frames in AVI's main header
    at = content.index(b"strh") + 8
    content[at + 32 : at + 36] = struct.pack("<I", 99)  # and in the header of the stream
    path.write_bytes(content)
    assert read_header(path).shape[0] == len(read_frames(path)) == 7


@pytest.mark.parametrize(("colour", "luma"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)])
@pytest.mark.parametrize("ending", [".avi", ".gif"])
def test_colours_become_their_luma(tmp_path, colour, luma, ending):
    frames = np.tile(np.array(colour, np.uint8), (2, 8, 8, 1))
    frames[1, :4] = 0
    path = tmp_path / f"a{ending}"
    save_gif(path, frames, 20) if ending == ".gif" else save_video(path, frames, 50, "rawvideo", "bgr24")
    read = read_frames(path)
    assert np.abs(read[0].astype(int) - luma).max() <= 1 and np.all(read[1, :4] == 0)


def test_limited_range_video_is_stretched_to_the_full_range(tmp_path):
    frames = np.full((2, 16, 16), 255, np.uint8)
    frames[:, :8] = 0
    read = read_frames(save_video(tmp_path / "a.mp4", frames, 50, "ffv1", "yuv420p"))
    assert set(np.unique(read)) == {0, 255}


@pytest.mark.parametrize("ending", [".avi", ".gif"])
def test_the_share_of_coloured_pixels_is_told(tmp_path, ending):
    frames = np.repeat(FRAMES[..., None], 3, axis=-1)
    frames[:, :4, :12] = (200, 30, 30)  # 48 of 384 pixels
    path = tmp_path / f"a{ending}"
    save_gif(path, frames, 20) if ending == ".gif" else save_video(path, frames, 50, "rawvideo", "bgr24")
    # The colours of a GIF are a palette of at most 256.
    assert coloured_share(path) == pytest.approx(48 / 384, abs=0.02 if ending == ".gif" else 1e-9)


def test_a_grey_motion_jpeg_is_not_coloured(tmp_path):
    assert coloured_share(save_video(tmp_path / "a.avi", FRAMES)) == 0


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, 1), (180, 2), (270, 3)])
def test_a_frame_is_turned_as_the_file_asks_for(tmp_path, degrees, turns):
    path = save(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[turns]
    # ISO 14496-12: nine numbers, a b u c d v x y w; a counterclockwise turn of the picture has a = d = cos, b = -sin.
    content[at : at + 36] = struct.pack(">9i", cos << 16, -sin << 16, 0, sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    assert np.array_equal(read_frames(path), np.rot90(FRAMES, turns, axes=(1, 2)))
    assert read_header(path).shape == np.rot90(FRAMES, turns, axes=(1, 2)).shape


def test_an_empty_file_is_refused(video):
    video.write_bytes(b"")
    with pytest.raises(InputError, match=rf"{video.name}: the file is empty; copy it again"):
        read_header(video)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.avi: expected a readable video file"):
        read_header(tmp_path / "a.avi")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut_off_is_refused(video, share):
    content = video.read_bytes()
    video.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=rf"{video.name}: (found .* it is cut off; copy|expected a readable)"):
        read_frames(video)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "a.avi"
    path.write_bytes(b"no video at all" * 100)
    with pytest.raises(InputError, match=r"a\.avi: expected a readable video, the file is damaged or no video"):
        read_header(path)


def test_a_file_with_sound_only_is_refused(tmp_path):
    import av

    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(InputError, match=r"a\.avi: found no video stream in it"):
        read_header(tmp_path / "a.avi")


def test_frames_of_different_sizes_are_refused(tmp_path):
    import av

    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=50, height=16, width=24, pix_fmt="yuvj420p")
        stream.codec_context.open()
        for time, frame in enumerate((FRAMES[0], FRAMES[0, :8, :16])):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height, encoder.width, encoder.pix_fmt = *frame.shape, "yuvj420p"
            encoder.time_base = Fraction(1, 50)
            for packet in encoder.encode(av.VideoFrame.from_ndarray(frame, "gray").reformat(format="yuvj420p")):
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, time, time, Fraction(1, 50)
                container.mux(packet)
    for read in (read_header, read_frames):
        with pytest.raises(InputError, match=r"found frames of sizes \(24, 16\) and \(16, 8\) \(x, y\)"):
            read(tmp_path / "a.avi")


def test_a_damaged_frame_is_refused(tmp_path):
    path = save_video(tmp_path / "a.avi", FRAMES)
    content = bytearray(path.read_bytes())
    at = content.index(b"00dc", content.index(b"00dc") + 1)
    length = struct.unpack("<I", content[at + 4 : at + 8])[0]
    # The mark that ends a picture, in the middle of one.
    content[at + 8 + length // 2 : at + 10 + length // 2] = b"\xff\xd9"
    path.write_bytes(content)
    with pytest.raises(InputError, match="the file is damaged"):
        read_frames(path)


def test_a_missing_pyav_is_named_with_what_to_install(tmp_path, monkeypatch):
    path = save(tmp_path / "a.avi")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'nnunet_temporal\[video\]'"):
        read_header(path)


def test_gif_needs_no_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert read_header(save(tmp_path / "a.gif")).shape == (7, 16, 24)


def test_titles_in_another_encoding_do_not_matter(tmp_path):
    import av

    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "M#ller"
        stream = container.add_stream("ffv1", rate=50)
        stream.height, stream.width, stream.pix_fmt = *FRAMES.shape[1:], "gray"
        for frame in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "gray")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"M#ller", b"M\xfcller"))
    assert np.array_equal(read_frames(path), FRAMES)


def test_frames_in_an_unknown_encoding_are_refused(tmp_path):
    path = save(tmp_path / "a.avi")
    path.write_bytes(path.read_bytes().replace(b"FFV1", b"????"))
    with pytest.raises(InputError, match="unknown encoding"):
        read_header(path)


def test_a_gif_that_claims_a_size_beyond_reason_is_refused(tmp_path):
    path = save(tmp_path / "a.gif")
    content = bytearray(path.read_bytes())
    content[6:10] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(InputError, match="may be damaged"):
        read_header(path)


def test_an_mp4_with_a_length_beyond_any_file_is_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(struct.pack(">I4sQ", 1, b"ftyp", 2**64 - 1) + bytes(100))
    with pytest.raises(InputError, match=r"a\.mp4: expected a readable video file"):
        read_header(tmp_path / "a.mp4")
