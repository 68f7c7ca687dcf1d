"""The captions that ``--translator memory`` remembers: AudioCaps' captions thinned out, for any model.

    python -m models.recipes.memory     # reads build/embeddings/audiocaps, writes models/translators/captions.txt

Those that are held out, by which translators are judged, stay out. Of as many groups of captions that mean the like as
there shall be, the one nearest to the middle stays: a random choice would hold a hundred sentences on speech, and no
accordion.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from translator.shards.pairs import Pairs
from translator.shards.parquet import open_shards

from . import data

SIZE = 2000
SHARDS = data.REPOSITORY / "build" / "embeddings" / "audiocaps"
CAPTIONS = data.REPOSITORY / "models" / "translators" / "captions.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    captions, vectors = [], []
    for words, batch in Pairs(open_shards([SHARDS])).captions():
        captions += words
        vectors.append(batch.clap.numpy())
    points = np.concatenate(vectors)
    groups = MiniBatchKMeans(SIZE, batch_size=8192, n_init=1, max_iter=20, random_state=0).fit(points)
    distance = np.linalg.norm(points - groups.cluster_centers_[groups.labels_], axis=1)
    nearest = {groups.labels_[row]: row for row in np.argsort(-distance)}  # the last one written is the nearest
    chosen = sorted(captions[row] for row in nearest.values())
    CAPTIONS.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    print(f"{len(chosen)} captions: {CAPTIONS}")


if __name__ == "__main__":
    main()
