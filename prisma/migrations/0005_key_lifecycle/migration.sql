-- What a key may do beyond its scopes, and its place in a line of keys: which one it replaced, and which one made it.
ALTER TABLE "api_keys"
  ADD COLUMN "allowed_cidrs" TEXT[] NOT NULL DEFAULT '{}',
  ADD COLUMN "allowed_service_ids" UUID[] NOT NULL DEFAULT '{}',
  ADD COLUMN "requests_per_minute" INTEGER,
  ADD COLUMN "replaces_id" UUID,
  ADD COLUMN "made_by_id" UUID,
  ADD COLUMN "revoked_reason" TEXT;
CREATE UNIQUE INDEX "api_keys_replaces_id_key" ON "api_keys"("replaces_id");
CREATE INDEX "api_keys_made_by_id_idx" ON "api_keys"("made_by_id");
ALTER TABLE "api_keys"
  ADD CONSTRAINT "api_keys_replaces_id_fkey" FOREIGN KEY ("replaces_id") REFERENCES "api_keys"("id") ON DELETE SET NULL ON UPDATE CASCADE,
  ADD CONSTRAINT "api_keys_made_by_id_fkey" FOREIGN KEY ("made_by_id") REFERENCES "api_keys"("id") ON DELETE SET NULL ON UPDATE CASCADE;

GRANT SELECT (allowed_cidrs, allowed_service_ids, requests_per_minute, replaces_id, made_by_id, revoked_reason),
  UPDATE (expires_at, revoked_reason) ON api_keys TO mcp_app;

-- A key's end only ever comes nearer, and a revocation is final, whoever writes.
CREATE FUNCTION app.keep_key_end() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
  IF OLD.revoked_at IS NOT NULL AND (NEW.revoked_at, NEW.revoked_reason) IS DISTINCT FROM (OLD.revoked_at, OLD.revoked_reason) THEN
    RAISE EXCEPTION 'a revoked API key stays as it is' USING ERRCODE = 'check_violation';
  END IF;
  IF coalesce(NEW.expires_at, 'infinity') > coalesce(OLD.expires_at, 'infinity') THEN
    RAISE EXCEPTION 'an API key cannot be made to live longer' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END
$$;
REVOKE EXECUTE ON FUNCTION app.keep_key_end() FROM PUBLIC;
CREATE TRIGGER keep_end BEFORE UPDATE ON api_keys FOR EACH ROW EXECUTE FUNCTION app.keep_key_end();

-- The services that a key is limited to; NULL for a credential that is not limited. It narrows each policy of services, so
-- that no list, look-up, tool setting or token goes past it.
CREATE FUNCTION app.allowed_services() RETURNS uuid[] LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN app.claims() ? 'services'
    THEN ARRAY(SELECT jsonb_array_elements_text(app.claims() -> 'services')::uuid) END
$$;
REVOKE EXECUTE ON FUNCTION app.allowed_services() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.allowed_services() TO mcp_app, mcp_system;
CREATE POLICY within_the_keys_limits ON services AS RESTRICTIVE TO mcp_app
  USING ((SELECT app.allowed_services()) IS NULL OR id = ANY ((SELECT app.allowed_services())::uuid[]));

-- Counters of limits and locks, in the columns that rate-limiter-flexible writes. They are kept for minutes and worth no
-- write-ahead log: after a crash of the server they start anew.
CREATE UNLOGGED TABLE "throttle_counters" (
  "key" VARCHAR(255) NOT NULL,
  "points" INTEGER NOT NULL DEFAULT 0,
  "expire" BIGINT,
  CONSTRAINT "throttle_counters_pkey" PRIMARY KEY ("key")
);
CREATE INDEX "throttle_counters_expire_idx" ON "throttle_counters"("expire");
ALTER TABLE throttle_counters ENABLE ROW LEVEL SECURITY;
ALTER TABLE throttle_counters FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON throttle_counters TO CURRENT_USER USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON throttle_counters TO mcp_system;
CREATE POLICY system_all ON throttle_counters TO mcp_system USING (true) WITH CHECK (true);
