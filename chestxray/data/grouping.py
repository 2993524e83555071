"""Grouping of images that are not independent: those of one patient, and copies of one radiograph."""

from __future__ import annotations

import numpy as np
import pandas as pd


def patient_keys(rows: pd.DataFrame) -> pd.Series:
    """Return one key (str) per row: the patient within its source if known, else the row's own path.

    Rows that share a key are not independent: splits keep them together, and intervals and tests count
    them as one patient. `rows` has the columns source, patient and path.
    """
    known = rows["source"] + "\0" + rows["patient"]
    return known.where(rows["patient"] != "", rows["path"])


def patient_codes(rows: pd.DataFrame) -> np.ndarray:
    """Return `patient_keys` as numbers from 0, in the order of first occurrence: int64 (rows,)."""
    return pd.factorize(patient_keys(rows))[0].astype(np.int64)


def dependent_groups(rows: pd.DataFrame) -> np.ndarray:
    """Return codes (rows,) of the groups that must stay together: a patient's images, and copies of one image.

    The groups are the connected components of "same patient", "same pixels" and, if copies were
    searched, "same radiograph" (the column ``near_group``).
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(rows)
    parts = [patient_codes(rows)]
    if "pixel_hash" in rows:
        parts.append(pd.factorize(rows["pixel_hash"])[0])
    if "near_group" in rows:
        parts.append(pd.factorize(rows["near_group"].where(rows["near_group"] != "", rows["path"]))[0])
    # A bipartite graph of rows and keys: rows that share a key are connected through it.
    offset, edges = n, []
    for codes in parts:
        edges.append(np.stack([np.arange(n), codes + offset]))
        offset += int(codes.max()) + 1
    start, end = np.concatenate(edges, axis=1)
    graph = coo_matrix((np.ones(len(start), dtype=bool), (start, end)), shape=(offset, offset))
    return connected_components(graph, directed=False)[1][:n]
