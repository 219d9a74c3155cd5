"""Make the embedded backgrounds and cut-outs from unpacked Debian packages (photos stands for its full path):

    apt-get download lomiri-wallpapers-16.04 mate-backgrounds \\
        plasma-workspace-wallpapers tuxpaint-stamps-default
    for p in *.deb; do dpkg -x $p packages; done
    python docs/embedded/make_photos.py packages photos
    cd configs/embedded
    python -m factory.backgrounds --kind folder --root photos/windows --out backgrounds
    python -m factory.backgrounds --kind folder --root photos/held-out --out backgrounds-held-out
    cp -r photos/cutouts .

Photos that show a bird, a car or a face were left out by eye, as were drawings and renderings. Each photo
gives four windows; those of six photos are held out, to test on.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

LOMIRI = [
    "Bridge",
    "Dragonfly",
    "Picture_0B",
    "Picture_1A",
    "Wine",
    "aitzgorri",
    "life",
    "picosdeeuropa",
    "seeding",
    "sunset",
]
MATE = [
    "Aqua",
    "Blinds",
    "Dune",
    "FreshFlower",
    "Garden",
    "GreenMeadow",
    "LadyBird",
    "RainDrops",
    "Storm",
    "TwoWings",
    "Wood",
    "YellowFlower",
]
PLASMA = [
    "BytheWater",
    "ColdRipple",
    "ColorfulCups",
    "DarkestHour",
    "EveningGlow",
    "FallenLeaf",
    "Grey",
    "OneStandsOut",
    "Path",
    "summer_1am",
]
HELD_OUT = {
    "lomiri-dragonfly",
    "lomiri-aitzgorri",
    "mate-garden",
    "mate-wood",
    "plasma-path",
    "plasma-coldripple",
}
LEFT_OUT = {
    "helmeted_guineafowl",
    "albino_peahen",
    "quetzal",
}  # a licence; a nest and a branch in the opacity
WINDOW_PX = 480
SHORT_SIDE_PX = 1100
WINDOWS = 5  # of each photo; the plainest is left out
CUTOUT_PX = 256


def main() -> None:
    packages, out = (Path(name) for name in sys.argv[1:])
    windows, held_out, cutouts = (out / name for name in ("windows", "held-out", "cutouts"))
    for folder in (windows, held_out, cutouts):
        folder.mkdir(parents=True, exist_ok=True)
    for name, path in photos(packages / "usr/share").items():
        for number, window in enumerate(cut_windows(path, name)):
            file = (held_out if name in HELD_OUT else windows) / f"{name}-{number}.jpg"
            cv2.imwrite(str(file), window, [cv2.IMWRITE_JPEG_QUALITY, 95])
    for path in sorted((packages / "usr/share/tuxpaint/stamps/animals/birds").glob("*.png")):
        if path.stem in LEFT_OUT:
            continue
        with Image.open(path) as stamp:
            picture = stamp.convert("RGBA")
        picture.thumbnail((CUTOUT_PX, CUTOUT_PX), Image.Resampling.LANCZOS)
        picture.save(cutouts / path.name, optimize=True)


def photos(share: Path) -> dict[str, Path]:
    """Name and file of every photo that was chosen, the largest version of it."""
    found = {}
    for name in LOMIRI:
        (found[f"lomiri-{name.lower()}"],) = (share / "backgrounds").glob(f"{name}_by_*.jpg")
    for name in MATE:
        found[f"mate-{name.lower()}"] = share / "backgrounds/mate/nature" / f"{name}.jpg"
    for name in PLASMA:
        files = (share / "wallpapers" / name / "contents/images").iterdir()
        found[f"plasma-{name.lower().replace('_', '-')}"] = max(files, key=lambda path: path.stat().st_size)
    return found


def cut_windows(path: Path, name: str) -> list[np.ndarray]:
    """Four windows at places and scales drawn from the photo's name: the least plain of five."""
    photo = cv2.imread(str(path))
    shrink = SHORT_SIDE_PX / min(photo.shape[:2])
    photo = cv2.resize(photo, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    height, width = photo.shape[:2]
    rng = np.random.default_rng(list(name.encode()))
    found = []
    for column in range(WINDOWS):
        side = int(rng.integers(WINDOW_PX, 900))
        left = int((width - side) * (column + rng.uniform(0, 1)) / WINDOWS)
        top = int(rng.integers(0, height - side + 1))
        window = cv2.resize(
            photo[top : top + side, left : left + side], (WINDOW_PX, WINDOW_PX), interpolation=cv2.INTER_AREA
        )
        found.append(window)
    plainest = min(range(WINDOWS), key=lambda i: float(cv2.Laplacian(found[i], cv2.CV_32F).std()))
    return [window for number, window in enumerate(found) if number != plainest]


if __name__ == "__main__":
    main()
