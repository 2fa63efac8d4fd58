package peers;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;

/** Settings from the environment, the checksum of a result, and what is reported. */
public final class Run {
    private Run() {}

    /** A variable that must be set. */
    public static String env(String name) {
        String v = System.getenv(name);
        if (v == null || v.isEmpty()) {
            throw new IllegalStateException(name + " is not set");
        }
        return v;
    }

    /** What the rows of a result add to its checksum: the generator's weight of a video and minute, times the count. */
    public static long checksum(String video, long windowStartMs, long count) {
        long z = Long.parseLong(video, 1, video.length(), 10) << 32 | windowStartMs / 60_000;
        z += 0x9E3779B97F4A7C15L;
        z = (z ^ z >>> 30) * 0xBF58476D1CE4E5B9L;
        z = (z ^ z >>> 27) * 0x94D049BB133111EBL;
        return (z ^ z >>> 31) * count;
    }

    /** CPU seconds of the whole process since it started, JVM start-up and compilation included. */
    public static double cpuSeconds() {
        OperatingSystemMXBean os = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        return os.getProcessCpuTime() / 1e9;
    }

    /** One line; whoever started this compares counts and checksum with what was sent. */
    public static void report(long events, long rows, long checksum, double cpuSeconds) {
        System.out.printf(
            "{\"events\":%d,\"rows\":%d,\"checksum\":%s,\"cpu_s\":%.3f}%n", events, rows, Long.toUnsignedString(checksum), cpuSeconds);
    }
}
