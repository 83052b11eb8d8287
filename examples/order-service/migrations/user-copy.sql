-- user-service's users, as far as their events and the list have told.
CREATE TABLE user_copies (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    email TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- The number of the last change that is in this row.
    version BIGINT NOT NULL
);

-- One row: which changes are in the copy.
CREATE TABLE user_copy_state (
    id BIGINT PRIMARY KEY,
    -- Names the queue, so that a database and its queue belong together.
    copy_id TEXT NOT NULL,
    first_event BIGINT NOT NULL,
    last_event BIGINT NOT NULL,
    synced BIGINT NOT NULL,
    epoch BIGINT NOT NULL
);
