-- The number of a user's last change, in the order of commits; a new user's is its own number.
ALTER TABLE users ADD COLUMN version BIGINT;

UPDATE users SET version = commit_number;

-- What is to be published, written in the transaction that it is about. Ids are the numbers of changes, so they are in the
-- order of commits and have no holes.
CREATE TABLE outbox (
    id BIGINT PRIMARY KEY,
    user_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    -- Set once the broker has confirmed that it has it.
    published_at BIGINT
);

CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL;
