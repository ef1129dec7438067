"""How many of the best tracks a search finds, by how many videos are scored exactly.

    python -m benchmarks.search_recall WAREHOUSE [RUN]

For runs of the paper's selector: with two towers all scores are exact. Queries are 60 expressions
of the warehouse that are no reference texts. Recall is the share of the 20 tracks of the highest
exact scores, over all videos, that are among the 20 found. Make the search vectors first:
`sola search --warehouse WAREHOUSE`.
"""

import hashlib
import sys

import numpy as np
import torch

from sola_model.selector.search import ReferenceQuery, reference_weights, text_logits
from tasks.runs import find_run
from tasks.search.index import search_index
from tasks.search.track_search import promising_videos
from tasks.search.vectors import scorer_of, searched, vector_plan
from warehouse import Warehouse

QUERIES, TOP = 60, 20
EXACT = (20, 50, 100, 200)


def main(warehouse: str, run_id: str | None = None) -> None:
    store = Warehouse(warehouse)
    run = find_run(store, run_id)
    about = searched(store, run)
    references = about.texts
    expressions = store.read("expressions", store.current("ingest").values())["text"].to_pylist()
    others = sorted(
        set(expressions) - set(references), key=lambda t: hashlib.md5(t.encode()).digest()
    )
    scorer = scorer_of(store, run)
    queries = scorer.encode(others[:QUERIES])
    weights = [reference_weights(scorer.encode(references), text_WC) for text_WC in queries]

    commits = list(store.current("search", list(vector_plan(store, about).wanted)).values())
    index = search_index(store, run.run_id, commits)
    video_N, precomputed = index.video_N, store.current("precompute")
    tokens = (scorer.tracks(store, precomputed[key.of(run_id="")])[1] for key in index.keys)
    exact_NQ = np.concatenate(
        [text_logits(scorer.selector, tokens_NTD, queries) for tokens_NTD in tokens]
    )
    print(f"{len(video_N)} tracks of {len(np.unique(video_N))} videos, {len(queries)} queries")
    best = 1 / (1 + np.exp(-np.sort(exact_NQ, axis=0)[-TOP:]))
    for count in EXACT:
        recall, scores = [], []
        for weights_K, exact_N in zip(weights, exact_NQ.T, strict=True):
            query = ReferenceQuery(torch.from_numpy(weights_K).float())
            estimates_N = index.logits(query)
            chosen = promising_videos(video_N, estimates_N, count)
            scored_N = np.where(np.isin(video_N, chosen), exact_N, -np.inf)
            found = np.argsort(-scored_N)[:TOP]
            recall.append(np.isin(np.argsort(-exact_N)[:TOP], found).mean())
            scores.append(1 / (1 + np.exp(-exact_N[found])))
        print(f"{count:4} videos exactly: recall@{TOP} {100 * np.mean(recall):.1f} %", end=", ")
        print(f"mean score {100 * np.mean(scores):.1f} % of {100 * best.mean():.1f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
