"""The encoders that make segments: their arguments, and whether they work on this machine.

Users give x264's words, `crf` and a preset's name, whatever the encoder; here they become each
encoder's own constant-quality parameter and speed. All make closed groups of pictures and reorder
frames by no more than `stitch.REORDER_DELAY`.
"""

import functools
import subprocess
from collections.abc import Mapping

from asha_ray import ffmpeg
from asha_ray.values import EncoderSettings

NVENC = ("h264_nvenc", "hevc_nvenc", "av1_nvenc")
CODECS = ("libx264", "libx265", "libsvtav1", *NVENC)
PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast",
    "medium", "slow", "slower", "veryslow",
)  # fmt: skip

MAX_CRF, MAX_AV1_CRF = 51, 63
SVT_AV1_PRESETS: Mapping[str, int] = dict(zip(PRESETS, (12, 11, 10, 9, 8, 7, 5, 4, 3), strict=True))
NVENC_PRESETS: Mapping[str, str] = dict(
    zip(PRESETS, ("p1", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p7"), strict=True)
)
PROBE_SIDE = 256
PROBE_S = 20


def arguments(settings: EncoderSettings) -> list[str]:
    """ffmpeg's arguments that say how to encode; the group's length is the caller's."""
    codec, threads = settings.codec, str(settings.threads)
    preset = settings.preset
    if codec == "libsvtav1":
        speed = str(SVT_AV1_PRESETS.get(preset, preset))
        crf = round(settings.crf * MAX_AV1_CRF / MAX_CRF)
        # scd=0: a group begins where it must, never at a cut; irefresh-type=2: groups are closed.
        parameters = f"lp={threads}:scd=0:irefresh-type=2"
        return ["-preset", speed, "-crf", str(crf), "-svtav1-params", parameters]
    if codec in NVENC:
        speed = NVENC_PRESETS.get(preset, preset)
        scale = MAX_AV1_CRF / MAX_CRF if codec == "av1_nvenc" else 1
        quality = ["-rc", "vbr", "-cq", str(round(settings.crf * scale)), "-b:v", "0"]
        groups = ["-forced-idr", "1", "-strict_gop", "1", "-bf", "2", "-b_ref_mode", "disabled"]
        tag = ["-tag:v", "hvc1"] if codec == "hevc_nvenc" else []
        return ["-preset", speed, *quality, *groups, *tag]
    common = ["-preset", preset, "-crf", str(settings.crf), "-threads", threads]
    if codec == "libx265":
        parameters = f"log-level=error:open-gop=0:pools={threads}:frame-threads=1"
        return [*common, "-tag:v", "hvc1", "-x265-params", parameters]
    return [*common, "-x264-params", "open-gop=0"]


@functools.cache
def failure(codec: str) -> str:
    """Why an encoder does not work on this machine, found by a tiny encode; empty if it does."""
    if codec not in ffmpeg.encoders():
        return f"this ffmpeg has no {codec}"
    side = PROBE_SIDE
    settings = EncoderSettings(codec, 20, "ultrafast", 1, "")
    command = [
        *("-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", f"{side}x{side}", "-i", "pipe:0"),
        *("-c:v", codec, *arguments(settings), "-frames:v", "1", "-f", "null", "-"),
    ]
    try:
        done = subprocess.run(
            [ffmpeg.executable(), "-hide_banner", "-v", "error", *command],
            input=bytes(side * side * 3 // 2),
            capture_output=True,
            timeout=PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{codec} does not run here ({error})"
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    said = ffmpeg.ADDRESS.sub("", lines[0]).strip() if lines else f"code {done.returncode}"
    return f"{codec} does not run here ({said[:120]})"
