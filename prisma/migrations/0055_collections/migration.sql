-- Named sets of tools that an organisation publishes at /mcp/{organization}/collections/{collection}. A collection only
-- narrows: what it holds is seen and called by the same rules as without it.
CREATE TABLE "collections" (
  "id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "slug" TEXT NOT NULL,
  "name" TEXT NOT NULL,
  "description" TEXT NOT NULL DEFAULT '',
  "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updated_at" TIMESTAMPTZ(3) NOT NULL,
  CONSTRAINT "collections_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "collections_org_id_fkey" FOREIGN KEY ("org_id") REFERENCES "organizations"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "collections_org_id_slug_key" ON "collections"("org_id", "slug");

CREATE TABLE "collection_tools" (
  "id" UUID NOT NULL,
  "org_id" UUID NOT NULL,
  "collection_id" UUID NOT NULL,
  "service_id" UUID NOT NULL,
  "tool" TEXT NOT NULL,
  CONSTRAINT "collection_tools_pkey" PRIMARY KEY ("id"),
  CONSTRAINT "collection_tools_collection_id_fkey" FOREIGN KEY ("collection_id") REFERENCES "collections"("id") ON DELETE CASCADE ON UPDATE CASCADE,
  CONSTRAINT "collection_tools_service_id_fkey" FOREIGN KEY ("service_id") REFERENCES "services"("id") ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE UNIQUE INDEX "collection_tools_collection_id_service_id_tool_key" ON "collection_tools"("collection_id", "service_id", "tool");
CREATE INDEX "collection_tools_service_id_idx" ON "collection_tools"("service_id");
CREATE INDEX "collection_tools_org_id_idx" ON "collection_tools"("org_id");

ALTER TABLE "collections" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "collections" FORCE ROW LEVEL SECURITY;
ALTER TABLE "collection_tools" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "collection_tools" FORCE ROW LEVEL SECURITY;

GRANT SELECT, INSERT, DELETE, UPDATE ("name", "description", "updated_at") ON "collections" TO mcp_app;
CREATE POLICY read_own ON "collections" FOR SELECT TO mcp_app USING (org_id = (SELECT app.org_id()));
CREATE POLICY publish ON "collections" FOR INSERT TO mcp_app
  WITH CHECK (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin')));
CREATE POLICY change ON "collections" FOR UPDATE TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin')))
  WITH CHECK (org_id = (SELECT app.org_id()));
CREATE POLICY withdraw ON "collections" FOR DELETE TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin')));

GRANT SELECT, INSERT, DELETE ON "collection_tools" TO mcp_app;
CREATE POLICY read_own ON "collection_tools" FOR SELECT TO mcp_app USING (org_id = (SELECT app.org_id()));
CREATE POLICY choose ON "collection_tools" FOR INSERT TO mcp_app WITH CHECK (
  org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin'))
  AND EXISTS (SELECT FROM services s WHERE s.id = service_id AND s.org_id = (SELECT app.org_id()))
  AND EXISTS (SELECT FROM collections c WHERE c.id = collection_id AND c.org_id = (SELECT app.org_id()))
);
CREATE POLICY remove ON "collection_tools" FOR DELETE TO mcp_app
  USING (org_id = (SELECT app.org_id()) AND (SELECT app.has_scope('mcp:admin')));

-- Nothing of this without a second factor, whatever the application forgot.
CREATE POLICY publish_needs_mfa ON "collections" AS RESTRICTIVE FOR INSERT TO mcp_app WITH CHECK ((SELECT app.has_fresh_mfa()));
CREATE POLICY change_needs_mfa ON "collections" AS RESTRICTIVE FOR UPDATE TO mcp_app USING ((SELECT app.has_fresh_mfa()));
CREATE POLICY withdraw_needs_mfa ON "collections" AS RESTRICTIVE FOR DELETE TO mcp_app USING ((SELECT app.has_fresh_mfa()));
CREATE POLICY choose_needs_mfa ON "collection_tools" AS RESTRICTIVE FOR INSERT TO mcp_app WITH CHECK ((SELECT app.has_fresh_mfa()));
CREATE POLICY remove_needs_mfa ON "collection_tools" AS RESTRICTIVE FOR DELETE TO mcp_app USING ((SELECT app.has_fresh_mfa()));
