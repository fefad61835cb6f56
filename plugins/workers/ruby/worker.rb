#!/usr/bin/env ruby
# frozen_string_literal: true

# Runs a worker until SIGTERM or SIGINT. It is configured by the environment:
#
#   DATABASE_URL      with a role that was granted the namespace
#   TASKER_NAMESPACE  whose steps to run
#   TASKER_WORKER     the worker's name; default: this host's
#   TASKER_LEASE      seconds; default: 60
require "socket"
require_relative "handlers"

$stderr.sync = true
worker = TaskerWorker.new(
  url: ENV.fetch("DATABASE_URL"), namespace: ENV.fetch("TASKER_NAMESPACE"),
  name: ENV.fetch("TASKER_WORKER", Socket.gethostname), lease: Integer(ENV.fetch("TASKER_LEASE", "60")),
  handlers: Arithmetic::HANDLERS.merge(Check::HANDLERS)
)
%w[TERM INT].each { |signal| trap(signal) { Thread.new { worker.stop } } }
worker.run
