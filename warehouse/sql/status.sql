-- Units of work of each stage, split and track set by their latest record: done, stale or failed
SELECT
    stage,
    dataset,
    split,
    track_set,
    count(*) FILTER (status = 'done') AS done,
    count(*) FILTER (stale) AS stale,
    count(*) FILTER (status = 'failed') AS failed
FROM commits
GROUP BY stage, dataset, split, track_set
ORDER BY stage, dataset, split, track_set
