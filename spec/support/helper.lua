-- What busted loads before the specs.
require "spec.support.collector"
require "spec.support.leaks"
