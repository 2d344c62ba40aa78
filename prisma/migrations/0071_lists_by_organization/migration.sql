-- Lists are read in the order of their ids, within an organisation: without these the planner may walk all organisations'
-- rows in that order and drop the others'.
CREATE INDEX "memberships_org_id_id_idx" ON "memberships"("org_id", "id");
CREATE INDEX "services_org_id_id_idx" ON "services"("org_id", "id");
CREATE INDEX "persisted_operations_org_id_id_idx" ON "persisted_operations"("org_id", "id");
