-- What an organisation asks of its MCP traffic beyond the rules that always hold.
ALTER TABLE "organizations" ADD COLUMN "block_credentials" BOOLEAN NOT NULL DEFAULT false;
ALTER TABLE "organizations" ADD COLUMN "hide_changed_tools" BOOLEAN NOT NULL DEFAULT false;
GRANT UPDATE ("block_credentials", "hide_changed_tools") ON "organizations" TO mcp_app;

-- What each tool said of itself when it was first seen or last accepted, and what it says now where that is something else.
CREATE TABLE "tool_pins" (
  "id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "service_id" UUID NOT NULL,
  "tool" TEXT NOT NULL,
  "accepted_hash" TEXT,
  "accepted_description" TEXT,
  "pending_hash" TEXT,
  "pending_description" TEXT,
  "changed_at" TIMESTAMPTZ(3),
  CONSTRAINT "tool_pins_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "tool_pins_service_id_fkey" FOREIGN KEY ("service_id") REFERENCES "services"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "tool_pins_service_id_tool_key" ON "tool_pins"("service_id", "tool");
CREATE INDEX "tool_pins_org_id_idx" ON "tool_pins"("org_id");
ALTER TABLE "tool_pins" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "tool_pins" FORCE ROW LEVEL SECURITY;
GRANT SELECT, UPDATE ("accepted_hash", "accepted_description", "pending_hash", "pending_description") ON "tool_pins" TO mcp_app;
CREATE POLICY read_own ON "tool_pins" FOR SELECT TO mcp_app USING (org_id = (SELECT app.org_id()));
CREATE POLICY accept ON "tool_pins" FOR UPDATE TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin')))
  WITH CHECK (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin')));
CREATE POLICY accept_needs_mfa ON "tool_pins" AS RESTRICTIVE FOR UPDATE TO mcp_app USING ((SELECT app.has_fresh_mfa()));
GRANT SELECT, INSERT, UPDATE ON "tool_pins" TO mcp_system;
CREATE POLICY system_all ON "tool_pins" TO mcp_system USING (true) WITH CHECK (true);

-- Counts the changes of a service's pins, so that an instance knows without reading them whether it knows them.
ALTER TABLE "services" ADD COLUMN "pins_version" INTEGER NOT NULL DEFAULT 0;
GRANT UPDATE ("pins_version") ON "services" TO mcp_app;
