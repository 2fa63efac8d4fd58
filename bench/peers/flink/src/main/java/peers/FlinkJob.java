package peers;

import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.atomic.LongAdder;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeHint;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;

/**
 * FlinkJob hashmap|rocksdb none|cassandra: counts per (video, minute) in a local MiniCluster of
 * two slots, with an exactly-once checkpoint each second. Every final window goes to the sink once.
 */
public final class FlinkJob {
    // One process: the sink writers and main share these.
    private static final LongAdder TOTAL = new LongAdder();
    private static final LongAdder ROWS = new LongAdder();
    private static final LongAdder CHECKSUM = new LongAdder();

    public static void main(String[] args) throws Exception {
        boolean cassandra = args[1].equals("cassandra");
        if (cassandra) {
            CassandraRows.reset();
        }
        StreamExecutionEnvironment env = StreamExecutionEnvironment.createLocalEnvironment(config(args[0]));

        KafkaSource<Tuple2<String, Long>> source = KafkaSource.<Tuple2<String, Long>>builder()
            .setBootstrapServers(Run.env("KAFKA"))
            .setTopics(Run.env("TOPIC"))
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setBounded(OffsetsInitializer.latest())
            .setValueOnlyDeserializer(new VideoAndTime())
            .setProperty("max.poll.records", "5000")
            .setProperty("max.partition.fetch.bytes", String.valueOf(4 << 20))
            .build();
        var watermarks = WatermarkStrategy.<Tuple2<String, Long>>forBoundedOutOfOrderness(Duration.ofSeconds(2))
            .withTimestampAssigner((e, previous) -> e.f1);
        env.fromSource(source, watermarks, "views")
            .keyBy(e -> e.f0)
            .window(TumblingEventTimeWindows.of(Duration.ofMinutes(1)))
            .aggregate(new Count(), new WithWindow())
            .sinkTo(new Rows(cassandra));

        env.execute("views_by_minute");
        double cpuSeconds = Run.cpuSeconds();
        long[] sum = cassandra ? CassandraRows.read() : new long[] {TOTAL.sum(), ROWS.sum(), CHECKSUM.sum()};
        Run.report(sum[0], sum[1], sum[2], cpuSeconds);
        System.exit(0);
    }

    private static Configuration config(String backend) {
        String work = Run.env("WORK");
        Configuration c = new Configuration();
        c.setString("parallelism.default", "2");
        c.setString("taskmanager.numberOfTaskSlots", "2");
        c.setString("taskmanager.memory.managed.size", "256m");
        c.setString("pipeline.object-reuse", "true");
        c.setString("pipeline.generic-types", "false");
        c.setString("state.backend.type", backend);
        c.setString("execution.checkpointing.interval", "1s");
        c.setString("execution.checkpointing.mode", "EXACTLY_ONCE");
        c.setString("execution.checkpointing.incremental", String.valueOf(backend.equals("rocksdb")));
        c.setString("execution.checkpointing.dir", Path.of(work, "flink-checkpoints").toUri().toString());
        c.setString("io.tmp.dirs", work);
        return c;
    }

    private static final class VideoAndTime extends AbstractDeserializationSchema<Tuple2<String, Long>> {
        VideoAndTime() {
            super(new TypeHint<Tuple2<String, Long>>() {});
        }

        @Override
        public Tuple2<String, Long> deserialize(byte[] bytes) {
            Event e = Event.parse(bytes);
            return Tuple2.of(e.video(), e.tsMs());
        }
    }

    private static final class Count implements AggregateFunction<Tuple2<String, Long>, Long, Long> {
        @Override
        public Long createAccumulator() {
            return 0L;
        }

        @Override
        public Long add(Tuple2<String, Long> event, Long count) {
            return count + 1;
        }

        @Override
        public Long getResult(Long count) {
            return count;
        }

        @Override
        public Long merge(Long a, Long b) {
            return a + b;
        }
    }

    private static final class WithWindow extends ProcessWindowFunction<Long, Tuple3<String, Long, Long>, String, TimeWindow> {
        @Override
        public void process(String video, Context c, Iterable<Long> counts, Collector<Tuple3<String, Long, Long>> out) {
            out.collect(Tuple3.of(video, c.window().getStart(), counts.iterator().next()));
        }
    }

    /** Adds up what it is given; with Cassandra also upserts it, all acknowledged by each checkpoint. */
    private record Rows(boolean cassandra) implements Sink<Tuple3<String, Long, Long>> {
        @Override
        public SinkWriter<Tuple3<String, Long, Long>> createWriter(WriterInitContext context) {
            CassandraRows table = cassandra ? new CassandraRows() : null;
            return new SinkWriter<>() {
                @Override
                public void write(Tuple3<String, Long, Long> row, Context c) {
                    ROWS.increment();
                    TOTAL.add(row.f2);
                    CHECKSUM.add(Run.checksum(row.f0, row.f1, row.f2));
                    if (table != null) {
                        table.upsert(row.f0, row.f1, row.f2);
                    }
                }

                @Override
                public void flush(boolean endOfInput) {
                    if (table != null) {
                        table.flush();
                    }
                }

                @Override
                public void close() {
                    if (table != null) {
                        table.close();
                    }
                }
            };
        }
    }
}
