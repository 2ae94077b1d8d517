// SIGINT and SIGTERM as a count that loops look at.
#pragma once

#include <csignal>

namespace essor::cli {

// From construction on the two signals are counted instead of ending the process, and a blocking
// read of stdin returns. One object in a process at a time; destruction restores what was.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Signals since construction or the last Reset().
  int count() const;
  void Reset();

 private:
  struct sigaction old_int_ = {};
  struct sigaction old_term_ = {};
};

}  // namespace essor::cli
