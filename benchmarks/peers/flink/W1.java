import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

/**
 * Flink SQL's exact sliding window on W1, from Kafka: run by flow.py with the jars of its own environment.
 *
 * <pre>java -cp '.peers/flink/jars/*' W1.java BOOTSTRAP TOPIC WARM_UP_TOPIC      prints {"events": .., "seconds": ..}</pre>
 *
 * Count, sum, mean and maximum of a driver's last 30 minutes at each of its events, in event time with a lateness of ten
 * seconds; one task slot, objects reused, state on the heap, no checkpoints, rows to nowhere. The first job of the JVM
 * reads another topic and is not timed, but its rows are counted; the second one's time is Flink's own: the job's net
 * runtime.
 */
public class W1 {
    private static final String OVER =
            "select driver_id, count(*) over w c, sum(amount) over w s, avg(amount) over w m, max(amount) over w x from %s"
                    + " window w as (partition by driver_id order by rt"
                    + " range between interval '30' minute preceding and current row)";

    public static void main(String[] args) throws Exception {
        TableEnvironment env = TableEnvironment.create(EnvironmentSettings.inStreamingMode());
        env.getConfig().set("parallelism.default", "1");
        env.getConfig().set("pipeline.object-reuse", "true");
        env.getConfig().set("table.local-time-zone", "UTC");
        read(env, "warm", args[0], args[2]);
        read(env, "measured", args[0], args[1]);
        long rows = 0;
        try (CloseableIterator<Row> found = env.executeSql(String.format(OVER, "warm")).collect()) {
            for (; found.hasNext(); found.next()) {
                rows++;
            }
        }
        env.executeSql(
                "create table nowhere (driver_id string, c bigint, s double, m double, x double)"
                        + " with ('connector' = 'blackhole')");
        TableResult told = env.executeSql("insert into nowhere " + String.format(OVER, "measured"));
        told.await();
        long millis = told.getJobClient().orElseThrow().getJobExecutionResult().get().getNetRuntime();
        System.out.printf("{\"rows\": %d, \"seconds\": %.3f}%n", rows, millis / 1000.0);
        System.exit(0);
    }

    private static void read(TableEnvironment env, String name, String bootstrap, String topic) {
        env.executeSql(
                String.format(
                        "create table %s (driver_id string, event_ts bigint, amount double,"
                                + " rt as to_timestamp_ltz(event_ts, 3), watermark for rt as rt - interval '10' second)"
                                + " with ('connector' = 'kafka', 'topic' = '%s', 'properties.bootstrap.servers' = '%s',"
                                + " 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset',"
                                + " 'format' = 'json')",
                        name, topic, bootstrap));
    }
}
