-- Each experiment's variants beside the paper's numbers: mean and spread over seeds, shares in percent
WITH shown AS (
    SELECT *, CASE WHEN unit = 'share' THEN 100 ELSE 1 END AS scale FROM experiments
)
SELECT
    experiment,
    dataset,
    split,
    recipe,
    variant,
    measured_on,
    metric,
    CASE WHEN unit = 'share' THEN '%' ELSE unit END AS unit,
    count(*) AS seeds,
    round(avg(scale * value), 3) AS mean,
    round(stddev_samp(scale * value), 3) AS spread,
    round(any_value(scale * paper), 3) AS paper
FROM shown
GROUP BY ALL
ORDER BY experiment, dataset, split, recipe, min(position)
