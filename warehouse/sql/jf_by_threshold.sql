-- Mean scores of each run and split for every threshold tau, in percent, and which tau is best
-- To choose tau by the split it is then reported on is optimistic: choose on one, report another.
SELECT
    run_id,
    dataset,
    split,
    track_set,
    tau,
    round(100 * avg(j), 2) AS j,
    round(100 * avg(f), 2) AS f,
    round(100 * avg(jf), 2) AS jf,
    avg(tracks_selected) AS tracks_selected,
    round(100 * avg(predicted_empty::INTEGER) FILTER (targets = 0), 2) AS n_acc,
    round(100 * avg((NOT predicted_empty)::INTEGER) FILTER (targets > 0), 2) AS t_acc,
    row_number() OVER (PARTITION BY run_id, dataset, split, track_set ORDER BY avg(jf) DESC, tau) = 1 AS best
FROM threshold_scores
JOIN expression_facts USING (dataset, split, video_id, expression_id)
WHERE NOT stale
GROUP BY run_id, dataset, split, track_set, tau
ORDER BY run_id, dataset, split, track_set, tau
