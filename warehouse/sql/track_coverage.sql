-- How well the tracks of each track set cover the annotated objects, in percent of the objects
-- covered: a union of tracks has a mean J of 0.5 or more with the object; by_one_track: one track
-- has. fragmented: a union has 0.05 more than the best track, so that several tracks are one object.
-- duplicates: how many further tracks of an object there are for each, on average.
SELECT
    dataset,
    split,
    track_set,
    count(*) AS objects,
    round(100 * avg(j), 2) AS oracle_j,
    round(100 * avg(coalesce(one_track_j, 0)), 2) AS one_track_j,
    round(100 * avg((j >= 0.5)::INTEGER), 2) AS covered,
    round(100 * avg((coalesce(one_track_j, 0) >= 0.5)::INTEGER), 2) AS by_one_track,
    round(100 * avg((j > coalesce(one_track_j, 0) + 0.05)::INTEGER), 2) AS fragmented,
    round(avg(duplicates), 2) AS duplicates
FROM object_coverage
WHERE NOT stale
GROUP BY dataset, split, track_set
ORDER BY dataset, split, track_set
