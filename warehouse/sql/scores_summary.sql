-- Mean scores of each run and split in percent, beside the oracle and trivial selectors
-- lost_in_tracks + lost_in_selection = 100 - J&F. Where a split has no-target expressions: n_acc
-- is the share of them with an empty prediction, t_acc that of the others with a non-empty one,
-- challenge (MeViS v2) the mean of J&F, n_acc and t_acc. zero_shot: neither the run nor a parent
-- was trained on this data set in any version; null: an imported checkpoint, so not known.
-- Scores that are stale are left out; `status` counts them.
WITH RECURSIVE lineage AS (
    SELECT run_id, parent, dataset FROM runs
    UNION
    SELECT lineage.run_id, runs.parent, runs.dataset
    FROM lineage
    JOIN runs ON runs.run_id = lineage.parent
),
trained AS (
    SELECT
        run_id,
        flatten(list(string_split(regexp_replace(dataset, '-v\d+', '', 'g'), '+'))) AS on_sets
    FROM lineage
    GROUP BY run_id
),
means AS (
    SELECT
        run_id,
        dataset,
        split,
        track_set,
        count(*) AS expressions,
        avg(j) AS j,
        avg(f) AS f,
        avg(jf) AS jf,
        avg(oracle_jf) AS oracle_jf,
        avg(lost_in_tracks) AS lost_in_tracks,
        avg(lost_in_selection) AS lost_in_selection,
        avg(all_tracks_jf) AS all_tracks_jf,
        avg(largest_track_jf) AS largest_track_jf,
        avg(random_track_jf) AS random_track_jf,
        avg(predicted_empty::INTEGER) FILTER (targets = 0) AS n_acc,
        CASE WHEN bool_or(targets = 0) THEN
            avg((NOT predicted_empty)::INTEGER) FILTER (targets > 0)
        END AS t_acc
    FROM expression_scores
    WHERE NOT stale
    GROUP BY run_id, dataset, split, track_set
)
SELECT
    run_id,
    means.dataset,
    means.split,
    track_set,
    runs.dataset || '/' || runs.split AS trained_on,
    CASE WHEN NOT list_contains(on_sets, 'imported') THEN
        NOT list_contains(on_sets, regexp_replace(means.dataset, '-v\d+$', ''))
    END AS zero_shot,
    expressions,
    round(100 * COLUMNS(means.* EXCLUDE (run_id, dataset, split, track_set, expressions)), 2),
    round(100 * (jf + n_acc + t_acc) / 3, 2) AS challenge
FROM means
LEFT JOIN runs USING (run_id)
LEFT JOIN trained USING (run_id)
ORDER BY run_id, means.dataset, means.split, track_set
