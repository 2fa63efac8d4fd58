package peers;

import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.Stores;

/**
 * KStreams mem|rocksdb eos|alos: counts per (video, minute) with Kafka Streams.
 */
public final class KStreams {
    private static final Duration MINUTE = Duration.ofMinutes(1);
    /** Keeps all windows to the end of the run, so that the store can be verified. */
    private static final Duration RETENTION = Duration.ofHours(2);

    public static void main(String[] args) throws Exception {
        String store = args[0];
        String guarantee = args[1];
        String appId = "peers-kstreams-" + ProcessHandle.current().pid();
        long expected = Long.parseLong(Run.env("EVENTS"));

        LongAdder seen = new LongAdder();
        KafkaStreams streams = new KafkaStreams(topology(store, seen).build(), config(appId, guarantee));
        streams.setUncaughtExceptionHandler(e -> {
            e.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        streams.start();
        while (seen.sum() < expected) {
            Thread.sleep(10);
        }
        double cpuSeconds = Run.cpuSeconds();
        report(streams, cpuSeconds);
        streams.close();
        streams.cleanUp();
        deleteTopics(appId);
        System.exit(0);
    }

    private static StreamsBuilder topology(String store, LongAdder seen) {
        var supplier = store.equals("rocksdb")
            ? Stores.persistentTimestampedWindowStore("counts", RETENTION, MINUTE, false)
            : Stores.inMemoryWindowStore("counts", RETENTION, MINUTE, false);
        var counts = Materialized.<String, Long>as(supplier)
            .withKeySerde(Serdes.String())
            .withValueSerde(Serdes.Long())
            .withCachingEnabled()
            .withLoggingEnabled(Map.of());

        Serde<Event> events = Serdes.serdeFrom((t, e) -> null, (t, bytes) -> Event.parse(bytes));
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(Run.env("TOPIC"), Consumed.with(Serdes.String(), events)
                .withTimestampExtractor((r, previous) -> ((Event) r.value()).tsMs()))
            .peek((k, e) -> seen.increment())
            .groupByKey()
            .windowedBy(TimeWindows.ofSizeAndGrace(MINUTE, Duration.ofSeconds(10)))
            .count(counts);
        return builder;
    }

    private static Properties config(String appId, String guarantee) {
        Properties p = new Properties();
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, appId);
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, Run.env("KAFKA"));
        p.put(StreamsConfig.STATE_DIR_CONFIG, Path.of(Run.env("WORK"), appId).toString());
        p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
            guarantee.equals("eos") ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
        p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
        p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64L << 20);
        p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        p.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
        p.put("consumer.auto.offset.reset", "earliest");
        p.put("consumer.max.poll.records", 5000);
        p.put("consumer.max.partition.fetch.bytes", 4 << 20);
        p.put("producer.linger.ms", 100);
        p.put("producer.batch.size", 256 << 10);
        p.put("producer.compression.type", "lz4");
        return p;
    }

    private static void report(KafkaStreams streams, double cpuSeconds) {
        long total = 0;
        long rows = 0;
        long checksum = 0;
        var query = StoreQueryParameters.fromNameAndType("counts", QueryableStoreTypes.<String, Long>windowStore());
        try (var all = streams.store(query).all()) {
            while (all.hasNext()) {
                var row = all.next();
                rows++;
                total += row.value;
                checksum += Run.checksum(row.key.key(), row.key.window().start(), row.value);
            }
        }
        Run.report(total, rows, checksum, cpuSeconds);
    }

    private static void deleteTopics(String appId) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", Run.env("KAFKA")))) {
            admin.deleteTopics(admin.listTopics().names().get().stream().filter(t -> t.startsWith(appId)).toList()).all().get();
        }
    }
}
