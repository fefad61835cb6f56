# frozen_string_literal: true

require_relative "lib/tasker_worker"

# The handlers of the arithmetic examples, under the names in their templates. Integers have
# any length.
module Arithmetic
  module_function

  def square_input(step)
    n = step.context["even_number"]
    raise TaskerWorker::Permanent.new("Task context must contain an even number", code: "EVEN_NUMBER_REQUIRED") unless n.is_a?(Integer) && n.even?

    n**2
  end

  def square(step)
    result_of(step, step.config["of"])**2
  end

  def square_product(step)
    step.config["of"].map { |name| result_of(step, name) }.inject(:*)**2
  end

  def result_of(step, name)
    step.dependencies.fetch(name) { raise TaskerWorker::Permanent.new("#{name} has no result", code: "MISSING_PARENT_RESULT") }
  end

  HANDLERS = {
    "math.square_input" => method(:square_input),
    "math.square" => method(:square),
    "math.square_product" => method(:square_product)
  }.freeze
end

# The handlers that `tasker worker check` requires of every worker.
module Check
  HANDLERS = {
    "check.echo" => ->(step) { step.context["value"] },
    "check.add" => ->(step) { step.dependencies.values.sum },
    "check.retry" => lambda do |step|
      raise TaskerWorker::Retryable.new("not at the first attempt", code: "CHECK_RETRY") if step.attempt == 1

      step.attempt
    end,
    "check.permanent" => ->(step) { raise TaskerWorker::Permanent.new(step.context["message"], code: "CHECK_PERMANENT") },
    "check.sleep" => ->(step) { step.wait(step.context["seconds"]) || "slept" },
    "check.poison" => ->(_step) { "a NUL: \0" }
  }.freeze
end
