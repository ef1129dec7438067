-- One row per expression and group it is reported under.
-- `slice` names the question, `value` the answer, `place` orders the answers. A tag is a slice of
-- its own with one value.
WITH facts AS MATERIALIZED (FROM expression_facts),
sliced AS (
    SELECT
        dataset,
        split,
        video_id,
        expression_id,
        unnest([
            {
                'slice': 'targets',
                'place': least(targets, 3),
                'value': CASE WHEN targets < 3 THEN targets::VARCHAR ELSE '3+' END
            },
            {
                'slice': 'motion words',
                'place': motion_words::INTEGER,
                'value': CASE WHEN motion_words THEN 'present' ELSE 'absent' END
            },
            {
                'slice': 'frames',
                'place': least(frame_count // 30, 4),
                'value': CASE
                    WHEN frame_count < 30 THEN 'under 30'
                    WHEN frame_count < 60 THEN '30 to 59'
                    WHEN frame_count < 90 THEN '60 to 89'
                    WHEN frame_count < 120 THEN '90 to 119'
                    ELSE '120 or more'
                END
            },
            {
                'slice': 'object size',
                'place': (object_size >= 0.01)::INTEGER + (object_size >= 0.05)::INTEGER
                    + (object_size >= 0.15)::INTEGER,
                'value': CASE
                    WHEN object_size < 0.01 THEN 'under 1 %'
                    WHEN object_size < 0.05 THEN '1 to 5 %'
                    WHEN object_size < 0.15 THEN '5 to 15 %'
                    ELSE '15 % or more'
                END
            },
            {
                'slice': 'other objects',
                'place': least(other_objects, 3),
                'value': CASE WHEN other_objects < 3 THEN other_objects::VARCHAR ELSE '3+' END
            }
        ], recursive := true)
    FROM facts
)
SELECT * FROM sliced WHERE place IS NOT NULL
UNION ALL BY NAME
SELECT
    dataset, split, video_id, expression_id, 'tag' AS slice, 0 AS place,
    unnest(list_distinct(tags)) AS value
FROM facts
