"""Speed and peak memory of NudeNet: our batches against `NudeDetector` one by one, same images.

python benchmarks/nudenet.py [images]

Each way runs in a process of its own, several times in turn. Both start from Pillow images in
memory, so neither is charged for decoding files. The detections are compared. On a busy machine
look at the CPU time, of which the least of all repeats is given.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# else this file would be what `import nudenet` finds
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent]

_REPEATS = 3
# threads as they come: one for ours unless an option says otherwise, all cores for theirs
_WAYS = {
    "NudeDetector.detect, its threads": ("theirs", 0),
    "NudeDetector.detect, 1 thread": ("theirs", 1),
    "our batches, 1 thread": ("ours", 1),
    "our batches, 2 threads": ("ours", 2),
}


def photographs(n: int) -> list[Any]:
    """Crops of scikit-image's packaged photographs, 512×512 pixels at most."""
    import numpy as np
    from PIL import Image
    from skimage import data

    whole = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    rng = np.random.default_rng(0)
    images = []
    for index in range(n):
        pixels = whole[index % len(whole)][:512, :512]
        top, left = rng.integers(0, 64, 2)
        images.append(Image.fromarray(np.ascontiguousarray(pixels[top:, left:])))
    return images


def theirs(images: list[Any], threads: int) -> list[list[Any]]:
    import numpy as np
    import onnxruntime
    from nudenet import NudeDetector

    detector = NudeDetector()
    if threads:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        path = Path(sys.modules["nudenet"].__file__ or "").with_name("320n.onnx")
        detector.onnx_session = onnxruntime.InferenceSession(str(path), options)
    # as cv2.imread would give the file
    found = [detector.detect(np.asarray(image)[..., ::-1].copy()) for image in images]
    return [[(one["class"], one["score"], one["box"]) for one in of_one] for of_one in found]


def ours(images: list[Any], threads: int) -> list[list[Any]]:
    from spqr_checks.judges.detections import Detector
    from spqr_checks.judges.nudenet import Label, model_file

    labels = Label.__args__  # type: ignore[attr-defined]
    detector = Detector.load(model_file(""), labels, 320, True, threads)
    found = detector.detect(images)
    return [[(one.label, one.score, [int(v) for v in one.box]) for one in each] for each in found]


def child(way: str, threads: int, n: int) -> None:
    images = photographs(n)
    run = {"theirs": theirs, "ours": ours}[way]
    run(images[:8], threads)  # imports and first allocation
    start, worked = time.perf_counter(), time.process_time()
    found = run(images, threads)
    seconds, cpu = time.perf_counter() - start, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"rate": n / seconds, "cpu": cpu / n, "peak": peak, "found": found}))


def main() -> None:
    if len(sys.argv) == 4:
        child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
        return
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in _WAYS}
    for _ in range(_REPEATS):
        for name, (way, threads) in _WAYS.items():
            command = [sys.executable, __file__, way, str(threads), str(n)]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            results[name].append(json.loads(printed.splitlines()[-1]))
    for name, runs in results.items():
        rates = ", ".join(f"{run['rate']:.1f}" for run in runs)
        peak = max(run["peak"] for run in runs) / 1024
        cpu = 1000 * min(run["cpu"] for run in runs)
        print(f"{name:34}  {rates} images/s  {cpu:.0f} ms of CPU an image  peak {peak:.0f} MiB")
    found = [run["found"] for runs in results.values() for run in runs]
    same = all(one == found[0] for one in found)
    boxes = sum(map(len, found[0]))
    print(f"{boxes} detections in {n} images, {'the same' if same else 'NOT the same'} every way")


if __name__ == "__main__":
    main()
