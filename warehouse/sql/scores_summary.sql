-- Mean J, F and J&F of each run and split, beside the oracle and trivial selectors, in percent
SELECT
    run_id,
    dataset,
    split,
    count(*) AS expressions,
    round(100 * avg(j), 2) AS j,
    round(100 * avg(f), 2) AS f,
    round(100 * avg(jf), 2) AS jf,
    round(100 * avg(oracle_jf), 2) AS oracle_jf,
    round(100 * avg(all_tracks_jf), 2) AS all_tracks_jf,
    round(100 * avg(largest_track_jf), 2) AS largest_track_jf,
    round(100 * avg(random_track_jf), 2) AS random_track_jf
FROM scores
GROUP BY run_id, dataset, split
ORDER BY run_id, dataset, split
