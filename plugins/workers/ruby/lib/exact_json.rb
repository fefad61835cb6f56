# frozen_string_literal: true

require "bigdecimal"
require "json"

# JSON without the loss of a digit: integers of any length are Integers, other numbers
# BigDecimals, in both directions.
module ExactJSON
  module_function

  def parse(text)
    text && JSON.parse(text, decimal_class: BigDecimal)
  end

  def generate(value)
    case value
    when Hash then "{#{value.map { |k, v| "#{JSON.generate(k.to_s)}:#{generate(v)}" }.join(',')}}"
    when Array then "[#{value.map { |v| generate(v) }.join(',')}]"
    when BigDecimal
      raise ArgumentError, "#{value} is not a JSON number" unless value.finite?

      value.to_s("F")
    else JSON.generate(value)
    end
  end
end
