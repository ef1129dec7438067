-- Units of work of each stage and split by their latest record: done or failed
SELECT
    stage,
    dataset,
    split,
    count(*) FILTER (status = 'done') AS done,
    count(*) FILTER (status = 'failed') AS failed
FROM commits
GROUP BY stage, dataset, split
ORDER BY stage, dataset, split
