-- One row per expression: its number of targets, their size, and what may make it hard.
-- targets, other_objects, object_size and visible_share are null in an unlabelled split.
WITH present AS (
    SELECT dataset, split, video_id, object_id, frame_index, area::DOUBLE / (height * width) AS share
    FROM ground_truth
    WHERE area > 0 AND object_id <> 'void'
),
objects AS (
    SELECT dataset, split, video_id, list_distinct(list(object_id)) AS all_objects
    FROM present
    GROUP BY ALL
),
asked AS (
    SELECT *, list_sort(list_distinct(object_ids)) AS target_ids FROM expressions
),
meant AS (  -- several expressions mean the same objects: each set of them once
    SELECT dataset, split, video_id, target_ids, unnest(target_ids) AS object_id
    FROM (SELECT DISTINCT dataset, split, video_id, target_ids FROM asked)
),
target_frames AS (  -- objects of a data set do not overlap, so their shares add up
    SELECT dataset, split, video_id, target_ids, frame_index, sum(share) AS share
    FROM meant
    JOIN present USING (dataset, split, video_id, object_id)
    GROUP BY ALL
),
target_sizes AS (
    SELECT
        dataset, split, video_id, target_ids, avg(share) AS object_size, count(*) AS seen_frames
    FROM target_frames
    GROUP BY ALL
)
SELECT
    asked.dataset,
    asked.split,
    video_id,
    expression_id,
    text,
    tags,
    object_ids,
    len(list_distinct(object_ids)) AS targets,
    CASE WHEN object_ids IS NOT NULL THEN
        len(list_filter(coalesce(all_objects, []), lambda o: NOT list_contains(object_ids, o)))
    END AS other_objects,  -- annotated objects of the video that are not meant
    object_size,  -- mean share of the frame that the targets take where any is visible
    CASE WHEN object_ids IS NOT NULL THEN
        coalesce(seen_frames, 0) / frame_count
    END AS visible_share,  -- share of the frames in which a target is visible
    frame_count,
    -- Verbs of motion and posture in any form, and words for the way of going. A list, not a
    -- parser: it takes "a flying kite" for motion and misses rarer verbs.
    regexp_matches(
        lower(text),
        '\b(mov|walk|runn?|jump|turn|rotat|spinn?|fly|swimm?|climb|fall|chas|follow|approach|pass'
        || '|leav|enter|cross|swing|push|pull|throw|catch|lift|rais|danc|rid|driv|shak|wav|slid'
        || '|roll|bounc|rush|crawl|stand|sitt?|lie|stay|stopp?|paus|wander|retreat|overtak|return'
        || '|trot|gallop|hopp?|skat|surf|div|drift|grow|shrink|becom)(e|s|es|ed|d|en|n|ing)?\b'
        || '|\b(go|goes|going|come|comes|coming|flies|lying|circling|forwards?|backwards?|upwards?'
        || '|downwards?|towards?|away|stationary|motionless|still)\b'
    ) AS motion_words
FROM asked
JOIN videos USING (dataset, split, video_id)
LEFT JOIN objects USING (dataset, split, video_id)
LEFT JOIN target_sizes USING (dataset, split, video_id, target_ids)
