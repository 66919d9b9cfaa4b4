-- Messages that came back more than once and are handled alone just now, and how often that was
-- begun: what ends the program each time it is handled is known by it.
CREATE TABLE trials (
    message BLOB NOT NULL PRIMARY KEY,
    begun INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;
