-- The id by which a client's own manifest names a document (Relay: MD5, graphql-codegen: SHA-1, Apollo: SHA-256).
ALTER TABLE "persisted_operations" ADD COLUMN "client_id" TEXT;
CREATE UNIQUE INDEX "persisted_operations_org_id_client_id_key" ON "persisted_operations"("org_id", "client_id");
GRANT UPDATE ("client_id") ON "persisted_operations" TO mcp_app;
CREATE POLICY rename ON "persisted_operations" FOR UPDATE TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:write')))
  WITH CHECK (org_id = (SELECT app.org_id()));
