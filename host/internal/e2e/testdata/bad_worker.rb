# frozen_string_literal: true

# A worker as it is written in a hurry: numbers become floats, leases are never
# renewed, every failure is retried, a cancel is not noticed, and it dies of what
# the database does not take and of SIGTERM.
require "pg"
require "json"

database = PG.connect(ENV.fetch("DATABASE_URL"))
handlers = PG::TextEncoder::Array.new.encode(%w[check.echo check.add check.retry check.permanent check.sleep check.poison])
loop do
  row = database.exec_params("select * from tasker_worker_claim($1, $2, $3, 1, '2 seconds')",
                             [ENV.fetch("TASKER_NAMESPACE"), ENV.fetch("TASKER_WORKER"), handlers]).first
  next sleep(0.1) unless row

  context = JSON.parse(row["context"])
  begin
    result = case row["handler"]
             when "check.echo" then context["value"]
             when "check.add" then JSON.parse(row["dependencies"]).values.sum(0.0)
             when "check.retry" then row["attempt"] == "1" ? raise("not yet") : "done"
             when "check.permanent" then raise context["message"]
             when "check.sleep" then sleep(context["seconds"])
             when "check.poison" then "a NUL: \0"
             end
    outcome = ["success", result.to_json, nil]
  rescue StandardError => e
    outcome = ["retryable", nil, { message: e.message }.to_json]
  end
  reply = database.exec_params("select verdict, detail from tasker_worker_settle($1, $2, $3, $4, $5)",
                               [row["step_uuid"], row["lease_id"], *outcome]).first
  raise reply["detail"] unless reply["verdict"] == "recorded"
end
