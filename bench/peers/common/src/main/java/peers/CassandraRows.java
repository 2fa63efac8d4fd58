package peers;

import com.datastax.oss.driver.api.core.CqlSession;
import com.datastax.oss.driver.api.core.config.DefaultDriverOption;
import com.datastax.oss.driver.api.core.config.DriverConfigLoader;
import com.datastax.oss.driver.api.core.cql.PreparedStatement;
import com.datastax.oss.driver.api.core.cql.Row;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.ZoneOffset;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicReference;

/** Asynchronous upserts into views_by_minute, a bounded number in flight. The last write of a row wins. */
public final class CassandraRows implements AutoCloseable {
    private static final int IN_FLIGHT = 256;
    private static final String TABLE = "peers.views_by_minute";

    private final CqlSession session = connect();
    private final Semaphore slots = new Semaphore(IN_FLIGHT);
    private final AtomicReference<Throwable> failure = new AtomicReference<>();
    private final PreparedStatement upsert;

    public CassandraRows() {
        upsert = session.prepare("INSERT INTO " + TABLE + " (video_id, day, minute, count) VALUES (?, ?, ?, ?)");
    }

    /** Creates the table, or empties it. */
    public static void reset() {
        try (CqlSession s = connect()) {
            for (String cql : new String[] {
                "CREATE KEYSPACE IF NOT EXISTS peers WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
                "CREATE TABLE IF NOT EXISTS " + TABLE + " (video_id text, day date, minute timestamp, count bigint,"
                    + " PRIMARY KEY ((video_id, day), minute))",
                "TRUNCATE " + TABLE
            }) {
                s.execute(cql);
            }
        }
    }

    public void upsert(String video, long windowStartMs, long count) {
        Throwable failed = failure.get();
        if (failed != null) {
            throw new IllegalStateException(failed);
        }
        Instant minute = Instant.ofEpochMilli(windowStartMs);
        LocalDate day = LocalDate.ofInstant(minute, ZoneOffset.UTC);
        slots.acquireUninterruptibly();
        session.executeAsync(upsert.bind(video, day, minute, count)).whenComplete((result, error) -> {
            slots.release();
            if (error != null) {
                failure.set(error);
            }
        });
    }

    /** Returns when everything written so far is acknowledged. */
    public void flush() {
        slots.acquireUninterruptibly(IN_FLIGHT);
        slots.release(IN_FLIGHT);
        if (failure.get() != null) {
            throw new IllegalStateException(failure.get());
        }
    }

    /** Adds up the whole table: views, rows, checksum. */
    public static long[] read() {
        long[] sum = new long[3];
        try (CassandraRows all = new CassandraRows()) {
            for (Row r : all.session.execute("SELECT video_id, minute, count FROM " + TABLE)) {
                long count = r.getLong(2);
                sum[0] += count;
                sum[1]++;
                sum[2] += Run.checksum(r.getString(0), r.getInstant(1).toEpochMilli(), count);
            }
        }
        return sum;
    }

    private static CqlSession connect() {
        String[] hostPort = Run.env("CASSANDRA").split(":");
        return CqlSession.builder()
            .addContactPoint(new InetSocketAddress(hostPort[0], Integer.parseInt(hostPort[1])))
            .withLocalDatacenter("datacenter1")
            .withConfigLoader(DriverConfigLoader.programmaticBuilder()
                .withDuration(DefaultDriverOption.REQUEST_TIMEOUT, Duration.ofSeconds(30))
                .build())
            .build();
    }

    @Override
    public void close() {
        session.close();
    }
}
