-- What each stage of a split has cost, in hours of workers and processors, beside what was planned
-- planned_*: what `sola plan` said last of all its videos, with the interval of worker_hours
WITH spent AS (
    SELECT
        dataset,
        split,
        track_set,
        stage,
        count(*) AS videos,
        sum(wall_seconds) / 3600 AS worker_hours,
        sum(cpu_seconds) / 3600 AS cpu_hours,
        max(host_bytes) / 1e9 AS host_gb,
        max(device_bytes) / 1e9 AS device_gb
    FROM commits
    WHERE status = 'done' AND video_id <> ''
    GROUP BY ALL
)
SELECT
    dataset,
    split,
    track_set,
    stage,
    spent.videos,
    plans.videos AS planned_videos,
    round(worker_hours, 4) AS worker_hours,
    round(wall_seconds / 3600, 4) AS planned_worker_hours,
    round(wall_seconds_low / 3600, 4) AS planned_low,
    round(wall_seconds_high / 3600, 4) AS planned_high,
    round(cpu_hours, 4) AS cpu_hours,
    round(cpu_seconds / 3600, 4) AS planned_cpu_hours,
    round(host_gb, 2) AS host_gb,
    round(device_gb, 2) AS device_gb
FROM spent
LEFT JOIN plans USING (dataset, split, track_set, stage)
ORDER BY dataset, split, track_set, worker_hours DESC
