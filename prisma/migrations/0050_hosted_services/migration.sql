-- A service that runs as a process: the name of an entry of the operator's catalogue, never a command.
ALTER TABLE "services"
  ADD COLUMN "hosted" TEXT,
  ADD CONSTRAINT "services_hosted_has_no_other_endpoint"
    CHECK (CASE WHEN "hosted" IS NULL THEN "endpoint" NOT LIKE 'hosted:%' ELSE "endpoint" = 'hosted:' || "hosted" END);

-- An administrator with a fresh second factor alone makes one, and none becomes one: `hosted` is not among the columns
-- that may be updated.
CREATE POLICY hosted_by_administrators ON services AS RESTRICTIVE FOR INSERT TO mcp_app WITH CHECK (
  "hosted" IS NULL OR ((SELECT app.has_scope('mcp:admin')) AND (SELECT app.has_fresh_mfa()))
);
