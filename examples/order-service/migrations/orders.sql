CREATE TABLE orders (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    -- A JSON array of {"sku", "quantity"}.
    items TEXT NOT NULL,
    -- confirmed, pending_verification or rejected.
    status TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Set, and counted, by the one UPDATE that takes an order out of pending_verification.
    resolved_at BIGINT,
    resolutions BIGINT NOT NULL,
    -- How often the reconciler asked in vain, and when it will ask again.
    checks BIGINT NOT NULL,
    next_check_at BIGINT NOT NULL
);

CREATE INDEX orders_by_status ON orders (status, id);
