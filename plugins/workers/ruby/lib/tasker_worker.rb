# frozen_string_literal: true

require "pg"
require_relative "exact_json"

# A worker of Tasker Host: it claims steps of one namespace, runs them one at a
# time, and keeps their leases meanwhile. What it promises the host, and what
# the host promises it, is in docs/write-a-worker.md.
class TaskerWorker
  # Raised by handlers. The step is tried again, after retry_after seconds if given.
  class Retryable < StandardError
    attr_reader :code, :retry_after

    def initialize(message, code: nil, retry_after: nil)
      super(message)
      @code = code
      @retry_after = retry_after
    end
  end

  # Raised by handlers. The step has failed permanently.
  class Permanent < StandardError
    attr_reader :code

    def initialize(message, code: nil)
      super(message)
      @code = code
    end
  end

  # Raised by Step#check!: nobody is waiting for the step's answer any more.
  class Gone < StandardError; end

  # Raised by Step#check!: the worker is shutting down, and the step goes back.
  class Stopping < StandardError; end

  # A bell that rings once, and can be waited for.
  class Bell
    def initialize
      @lock = Mutex.new
      @heard = ConditionVariable.new
    end

    def ring(why)
      @lock.synchronize do
        @why ||= why
        @heard.broadcast
      end
    end

    # Why it rang, or nil if it has not rung within the given number of seconds.
    def wait(seconds)
      deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
      @lock.synchronize do
        until @why
          left = deadline - Process.clock_gettime(Process::CLOCK_MONOTONIC)
          return if left <= 0

          @heard.wait(@lock, left)
        end
        @why
      end
    end
  end

  # What a handler gets.
  class Step
    attr_reader :name, :handler, :attempt, :max_attempts, :idempotency_key, :context, :config, :dependencies, :uuid, :lease

    def initialize(row)
      @uuid, @lease = row.values_at("step_uuid", "lease_id")
      @name, @handler, @idempotency_key = row.values_at("step_name", "handler", "idempotency_key")
      @attempt, @max_attempts = row.values_at("attempt", "max_attempts").map(&:to_i)
      @context, @config, @dependencies = row.values_at("context", "config", "dependencies").map { |text| ExactJSON.parse(text) }
      @interrupted = Bell.new
    end

    # Ends the handler at its next check!: why is Gone or Stopping.
    def interrupt(why) = @interrupted.ring(why)

    # Handlers that run for long call this now and then.
    def check! = wait(0)

    # Waits like sleep, but only as long as the step is wanted.
    def wait(seconds)
      why = @interrupted.wait(seconds)
      raise why if why
    end
  end

  STEP = "step_uuid, lease_id, step_name, handler, attempt, max_attempts, idempotency_key, context, config, dependencies"
  CLAIM = "select #{STEP} from tasker_worker_claim($1, $2, $3, 1, $4 * interval '1 second')"
  NEXT = "select verdict, detail, #{STEP} from tasker_worker_next($1, $2, $3, $4, $5, $6, $7 * interval '1 second')"
  HEARTBEAT = "select verdict, reason from tasker_worker_heartbeat($1, $2)"
  SETTLE = "select verdict, detail from tasker_worker_settle($1, $2, $3, $4, $5)"
  RELEASE = "select verdict, detail from tasker_worker_release($1, $2, p_reason => $3)"

  # What may be sent again unchanged: the functions report what an earlier call did.
  AGAIN = [PG::ConnectionBad, PG::UnableToSend, PG::TRSerializationFailure, PG::TRDeadlockDetected, PG::LockNotAvailable].freeze

  # handlers: a Hash of names to objects that take a Step when called and return
  # the result.
  def initialize(url:, namespace:, name:, handlers:, lease: 60, log: $stderr)
    @url, @namespace, @name, @handlers, @lease, @log = url, namespace, name, handlers, lease, log
    @names = PG::TextEncoder::Array.new.encode(handlers.keys)
    @stopping = Bell.new
  end

  # Claims and runs steps until stop is called.
  def run
    @database = Connection.new(@url, @log)
    pause = 0.05
    until stopping?
      row = @database.call(CLAIM, [@namespace, @name, @names, @lease]).first
      if row
        pause = 0.05
        step = Step.new(row)
        step = work(step) while step
      else
        @stopping.wait(pause)
        pause = [pause * 2, 1].min
      end
    end
  ensure
    @database&.close
  end

  # Gives back the step that runs, and ends run. May be called from any thread.
  def stop
    @stopping.ring(Stopping.new("the worker is shutting down"))
    @step&.interrupt(@stopping.wait(0))
  end

  private

  def stopping? = !@stopping.wait(0).nil?

  # Runs a step, answers, and returns the next one if there is one already.
  def work(step)
    @step = step
    step.interrupt(@stopping.wait(0)) if stopping?
    heart = Thread.new { beat(step) }
    answer(step, *outcome(step))
  ensure
    heart&.kill&.join
    @step = nil
  end

  # Runs the handler and returns its outcome, output and error.
  def outcome(step)
    ["success", ExactJSON.generate(@handlers.fetch(step.handler).call(step)), nil]
  rescue Gone, Stopping => e
    [e.class, nil, e.message]
  rescue Permanent => e
    ["permanent", nil, failure("PermanentError", e, code: e.code)]
  rescue Retryable => e
    ["retryable", nil, failure("RetryableError", e, code: e.code, retry_after: e.retry_after)]
  rescue JSON::GeneratorError, ArgumentError => e
    ["permanent", nil, failure("InvalidResult", e)]
  rescue StandardError => e
    ["retryable", nil, failure("UnexpectedError", e)]
  end

  def failure(type, error, **more)
    ExactJSON.generate({ type:, message: error.message.scrub.delete("\0"), **more.compact })
  end

  def answer(step, outcome, output, error)
    if outcome == "success" && !stopping?
      reply = @database.call(NEXT, [step.uuid, step.lease, output, @namespace, @name, @names, @lease]).first
      following = Step.new(reply) if reply["step_uuid"]
    elsif outcome.is_a?(String)
      reply = @database.call(SETTLE, [step.uuid, step.lease, outcome, output, error]).first
    else # Gone or Stopping
      note(step, error)
      reply = @database.call(RELEASE, [step.uuid, step.lease, error]).first if outcome == Stopping
    end
    return following if reply.nil? || %w[recorded already_recorded].include?(reply["verdict"])

    note(step, "#{reply['verdict']}: #{reply['detail']}")
    return following unless reply["verdict"] == "invalid" && outcome == "success"

    answer(step, "permanent", nil, ExactJSON.generate({ type: "InvalidResult", message: reply["detail"] }))
  end

  # Keeps the lease, over a connection of its own: the handler may keep this
  # thread waiting, but not the database.
  def beat(step)
    database = Connection.new(@url, @log)
    until_lost = now + @lease
    loop do
      sleep(@lease / 3.0)
      begin
        sent = now
        reply = database.call(HEARTBEAT, [step.uuid, step.lease], patience: @lease / 3.0).first
        return step.interrupt(Gone.new(reply["reason"])) unless reply["verdict"] == "ok"

        until_lost = sent + @lease
      rescue PG::Error => e
        note(step, "heartbeat: #{e.message}")
        return step.interrupt(Gone.new("the lease has run out")) if now >= until_lost
      end
    end
  ensure
    database&.close
  end

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  def note(step, text) = @log.puts("step #{step.name} #{step.uuid}: #{text}")

  # A connection that reconnects: a call that failed on the way is sent again.
  class Connection
    def initialize(url, log)
      @url = url
      @log = log
    end

    def call(sql, params, patience: 60)
      give_up = Process.clock_gettime(Process::CLOCK_MONOTONIC) + patience
      begin
        @connection ||= PG.connect(@url)
        @connection.exec_params(sql, params)
      rescue *AGAIN => e
        @log.puts("database: #{e.message}")
        close if @connection.nil? || @connection.status != PG::CONNECTION_OK
        raise if Process.clock_gettime(Process::CLOCK_MONOTONIC) >= give_up

        sleep(0.2)
        retry
      end
    end

    def close
      @connection&.close
    rescue PG::Error
      nil # it was broken
    ensure
      @connection = nil
    end
  end
end
