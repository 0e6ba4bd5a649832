"""Types of numpy and pandas whose elements are of a type that only a program's BTF tells."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

Array: TypeAlias = npt.NDArray[Any]
Dtype: TypeAlias = np.dtype[Any]
Values: TypeAlias = "pd.Series[Any]"
