"""What the gateway stands on: workers, Redis, processes, and their leaving."""

from deploy.observability.panel import Panel, Row, each, rate, worst

CLUSTER = Row(
    "集群与 Redis / Cluster and Redis",
    (
        Panel(
            "租约年龄 / Lease age",
            "距上次续租的时间：正常 0 到 2 秒，8 秒时其他进程视其为死亡"
            " / Since the lease was renewed: 0 to 2 s in health; at 8 s the others take the worker for dead.",
            (("max by (instance) (mcpgw_lease_age_seconds{$})", "{{instance}}"),),
            "s",
            alert="McpGatewayLeaseOld",
            threshold=4,
        ),
        Panel(
            "Redis 可达 / Redis reachable",
            "1 可达，0 不可达（此时本机内的调用照常） / 1: yes; 0: no, and calls within one worker go on.",
            (("min by (instance) (mcpgw_redis_connected{$})", "{{instance}}"),),
        ),
        Panel(
            "待答的命令 / Pending commands",
            "等待 Redis 回答的命令；上限 50,000 / Commands that wait for Redis; 50,000 at most.",
            ((each("mcpgw_redis_pending_commands"), "{{instance}}"),),
            alert="McpGatewayRedisBacklog",
            threshold=5000,
        ),
        Panel(
            "命令失败 / Command errors",
            "每秒失败的命令：refused 被 Redis 拒绝，misdirected 找错服务器，unsent 未能发出，unanswered 没有回答"
            " / Per second: refused by Redis, sent to the wrong server, never sent, not answered.",
            ((rate("mcpgw_redis_command_errors_total", "kind"), "{{kind}}"),),
            "cps",
        ),
        Panel(
            "重连与探测 / Reconnects and probes",
            "每秒重连次数，以及发给自己而未收到的消息"
            " / Reconnects per second, and messages to itself that did not arrive.",
            (
                (rate("mcpgw_redis_reconnects_total", "instance, link"), "{{instance}} {{link}}"),
                (rate("mcpgw_redis_probe_failures_total", "instance"), "{{instance}} 探测 / probe"),
            ),
            "cps",
        ),
        Panel(
            "邮箱滞后 / Mailbox lag (p99)",
            "从其他进程发出到本进程处理；正常为毫秒"
            " / From another worker's dispatch to its handling: milliseconds in health.",
            (worst("mcpgw_mailbox_lag_seconds"),),
            "s",
            alert="McpGatewayMailboxLag",
            threshold=1,
        ),
        Panel(
            "派发 / Dispatches",
            "每秒派发给其他进程的调用，按结果；nosub 表示无人收听"
            " / Calls handed to other workers, per second, by verdict. nosub: nobody listened.",
            ((rate("mcpgw_dispatches_total", "verdict"), "{{verdict}}"),),
            "cps",
        ),
        Panel(
            "退回 / Nacks",
            "其他进程退回的调用，按原因；moved 和 early 在重连时正常"
            " / Calls that other workers sent back, by reason. moved and early are normal while tool servers redial.",
            ((rate("mcpgw_nacks_total", "reason"), "{{reason}}"),),
            "cps",
        ),
        Panel(
            "间隙与补读 / Gaps and recoveries",
            "可能漏收消息的次数，以及从记录中补回的调用"
            " / Times at which messages may have been missed, and calls found in the records then.",
            (
                (rate("mcpgw_gaps_total", "instance"), "{{instance}} 间隙 / gap"),
                (rate("mcpgw_calls_recovered_total", "side"), "补回 / recovered {{side}}"),
            ),
            "cps",
        ),
        Panel(
            "清理的死进程 / Workers cleaned up after",
            "不告而别的进程 / Workers that went without a goodbye, as found by the others.",
            (("sum by (job) (increase(mcpgw_workers_reaped_total{$}[10m]))", "{{job}}"),),
        ),
    ),
)

PROCESS = Row(
    "事件循环与进程 / Event loop and process",
    (
        Panel(
            "循环滞后 p99 / Loop lag p99",
            "事件循环比约定晚多久；常态为毫秒 / How much later than asked for the loop wakes: milliseconds in health.",
            (worst("mcpgw_loop_lag_seconds"),),
            "s",
        ),
        Panel(
            "最长停顿 / Longest stall",
            "最近 30 秒内最长的一次；扩缩容也看它 / Within the last 30 s. What the autoscaler looks at, too.",
            (("max by (instance) (mcpgw_loop_lag_max_seconds{$})", "{{instance}}"),),
            "s",
            alert="McpGatewayLoopLag",
            threshold=0.5,
        ),
        Panel(
            "CPU",
            "1 = 一个核心；每个工作进程最多用一个 / 1 is one core, the most that a worker process can use.",
            ((rate("process_cpu_seconds_total", "instance"), "{{instance}}"),),
            "percentunit",
        ),
        Panel(
            "内存 / Memory",
            "常驻内存，以及容器的上限（若有）；每个连接约 30 KiB"
            " / Resident, and the container's limit where there is one. A connection takes about 30 KiB.",
            (
                (each("process_resident_memory_bytes"), "{{instance}}"),
                ("max by (instance) (mcpgw_memory_limit_bytes{$})", "{{instance}} 上限 / limit"),
            ),
            "bytes",
        ),
        Panel(
            "文件描述符 / File descriptors",
            "占上限的比例；每个连接一个 / Share of the limit; one for each connection.",
            (("max by (instance) (process_open_fds{$} / process_max_fds{$})", "{{instance}}"),),
            "percentunit",
            alert="McpGatewayFiles",
            threshold=0.8,
        ),
        Panel(
            "日志 / Log records",
            "每秒的日志，按级别；error 一条也不该有 / Per second, by level. There should not be a single error.",
            ((rate("mcpgw_log_records_total", "level"), "{{level}}"),),
            "cps",
        ),
        Panel(
            "垃圾回收 / Garbage collections",
            "每秒次数，按代 / Per second, by generation.",
            ((rate("python_gc_collections_total", "generation"), "{{generation}}"),),
            "cps",
        ),
        Panel(
            "运行时间 / Uptime",
            "自进程启动 / Since the process was started.",
            (("time() - max by (instance) (process_start_time_seconds{$})", "{{instance}}"),),
            "s",
        ),
    ),
)

DRAIN = Row(
    "排空与发布 / Drain",
    (
        Panel(
            "状态 / State",
            "每个状态下的实例数 / Instances by state: starting, up, draining, stopping.",
            (("sum by (state) (mcpgw_worker_state{$})", "{{state}}"),),
            width=6,
        ),
        Panel(
            "就绪 / Ready",
            "实例是否全部就绪 / Whether all processes of an instance take connections.",
            (("min by (instance) (mcpgw_ready{$})", "{{instance}}"),),
            width=6,
        ),
        Panel(
            "待离开的连接 / Connections to go",
            "排空中还剩的连接；应平稳下降 / What a drain still waits for. It should go down steadily.",
            ((each("mcpgw_drain_connections"), "{{instance}}"),),
            width=6,
        ),
        Panel(
            "剩余时间 / Time left",
            "排空窗口剩余；到 0 时其余连接被结束 / Of the drain's window. At 0 what is left is ended.",
            (("max by (instance) (mcpgw_drain_seconds_left{$})", "{{instance}}"),),
            "s",
            width=6,
        ),
        Panel(
            "版本 / Versions",
            "每个版本的实例数；发布之后应只有一个 / Instances by version. After a release there should be one.",
            (("count by (version, backplane) (mcpgw_build_info{$})", "{{version}} {{backplane}}"),),
            width=12,
        ),
        Panel(
            "进程 / Processes",
            "每个实例的进程，按状态 / Processes of each instance, by state.",
            ((each("mcpgw_workers", "instance, state"), "{{instance}} {{state}}"),),
            width=12,
        ),
    ),
)
