"""Made the archives beside it with numpy 2.4.6: python make.py"""

import numpy as np

c = np.arange(24.0).reshape(2, 3, 4) / 7
arrays = {
    "c": c,
    "fortran": np.asfortranarray(c),
    "big_endian": c.astype(">f8"),
    "f4": np.array([0.1, -0.2, np.finfo("f4").max], "f4"),
    "i4": np.array([-1, np.iinfo("i4").max], "i4"),
    "b1": np.array([True, False, True]),
    "scalar": np.array(7),
    "text": np.array("gelu λ"),
    "none": np.zeros((0, 5)),
}
np.savez("savez.npz", **arrays)
np.savez_compressed("savez_compressed.npz", **arrays)
np.savez("objects.npz", o=np.array([{"a": 1}], dtype=object))
