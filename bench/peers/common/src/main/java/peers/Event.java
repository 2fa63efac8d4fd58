package peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;

/** What a count needs of an event: pulled from the JSON, the other fields skipped, which is the fastest that Jackson does. */
public record Event(String video, long tsMs) {
    private static final JsonFactory FACTORY = new JsonFactory();

    public static Event parse(byte[] bytes) {
        try (JsonParser p = FACTORY.createParser(bytes)) {
            String video = null;
            long tsMs = 0;
            p.nextToken();
            while (p.nextToken() == JsonToken.FIELD_NAME) {
                String name = p.currentName();
                p.nextToken();
                if (name.equals("video_id")) {
                    video = p.getText();
                } else if (name.equals("ts")) {
                    tsMs = epochMs(p.getTextCharacters(), p.getTextOffset(), p.getTextLength());
                }
            }
            return new Event(video, tsMs);
        } catch (IOException e) {
            throw new IllegalArgumentException(e);
        }
    }

    /** Milliseconds since 1970 of {@code YYYY-MM-DDThh:mm:ss.mmmZ}. */
    static long epochMs(char[] c, int at, int length) {
        if (length != 24 || c[at + 10] != 'T' || c[at + 23] != 'Z') {
            throw new IllegalArgumentException("ts");
        }
        long y = number(c, at, 4);
        long m = number(c, at + 5, 2);
        long d = number(c, at + 8, 2);
        y -= m <= 2 ? 1 : 0;
        long yearOfEra = y % 400;
        long dayOfYear = (153 * ((m + 9) % 12) + 2) / 5 + d - 1;
        long days = y / 400 * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468;
        long seconds = number(c, at + 11, 2) * 3600 + number(c, at + 14, 2) * 60 + number(c, at + 17, 2);
        return (days * 86_400 + seconds) * 1000 + number(c, at + 20, 3);
    }

    private static long number(char[] c, int at, int digits) {
        long n = 0;
        for (int i = at; i < at + digits; i++) {
            int d = c[i] - '0';
            if (d < 0 || d > 9) {
                throw new IllegalArgumentException("ts");
            }
            n = n * 10 + d;
        }
        return n;
    }
}
