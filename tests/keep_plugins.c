// Preloaded by tests/run.sh --sanitize. OpenMPI unloads its plug-ins in MPI_Finalize and leaves memory of theirs behind;
// LeakSanitizer, which looks when the process ends, could then name no library for it. So nothing is unloaded.
int dlclose(void* library) {
  (void)library;
  return 0;
}
