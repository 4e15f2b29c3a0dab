/*
 * The disk's floor, with as little else as can be: threads that write files under a temporary name, sync, rename, and sync the folder. As
 * in voicemaild the files are spread over folders. Does what floor.ts does, and prints the same line.
 *
 * floor FOLDER FILE AT-ONCE SECONDS OPERATIONS
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SHARDS 256
#define MAX_THREADS 256

static const char *folder;
static char *bytes;
static size_t length;
static long operations;
static double until;
static atomic_long begun;

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec + at.tv_nsec / 1e9;
}

static void require(int ok, const char *what) {
  if (ok) return;
  perror(what);
  exit(1);
}

static void *write_files(void *unused) {
  (void)unused;
  char draft[4096], shard[4096], place[4096];
  while (now() < until) {
    long n = atomic_fetch_add(&begun, 1);
    if (n >= operations) break;
    snprintf(draft, sizeof draft, "%s/incoming/%d-%ld", folder, getpid(), n);
    snprintf(shard, sizeof shard, "%s/%02lx", folder, n % SHARDS);
    snprintf(place, sizeof place, "%s/%d-%ld", shard, getpid(), n);
    int file = open(draft, O_WRONLY | O_CREAT | O_EXCL, 0600);
    require(file >= 0, "open");
    require(write(file, bytes, length) == (ssize_t)length, "write");
    require(fdatasync(file) == 0, "fdatasync");
    require(close(file) == 0, "close");
    require(rename(draft, place) == 0, "rename");
    int directory = open(shard, O_RDONLY | O_DIRECTORY);
    require(directory >= 0 && fsync(directory) == 0 && close(directory) == 0, "fsync");
  }
  return NULL;
}

int main(int count, char **arguments) {
  if (count != 6) return 2;
  folder = arguments[1];
  int at_once = atoi(arguments[3]);
  operations = atol(arguments[5]);
  if (at_once < 1 || at_once > MAX_THREADS) return 2;

  struct stat about;
  int source = open(arguments[2], O_RDONLY);
  require(source >= 0 && fstat(source, &about) == 0, arguments[2]);
  length = about.st_size;
  bytes = malloc(length);
  require(bytes != NULL && read(source, bytes, length) == (ssize_t)length, "read");

  char path[4096];
  snprintf(path, sizeof path, "%s/incoming", folder);
  mkdir(path, 0700);
  for (int n = 0; n < SHARDS; n++) {
    snprintf(path, sizeof path, "%s/%02x", folder, n);
    mkdir(path, 0700);
  }

  pthread_t threads[MAX_THREADS];
  double since = now();
  until = since + atof(arguments[4]);
  for (int n = 0; n < at_once; n++) require(pthread_create(&threads[n], NULL, write_files, NULL) == 0, "pthread_create");
  for (int n = 0; n < at_once; n++) pthread_join(threads[n], NULL);
  double seconds = now() - since;

  struct rusage use;
  getrusage(RUSAGE_SELF, &use);
  long files = begun < operations ? begun : operations;
  double cpu_us = (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e6 + use.ru_utime.tv_usec + use.ru_stime.tv_usec;
  printf("%ld %f %.0f %ld\n", files, seconds, cpu_us, use.ru_maxrss * 1024);
  return 0;
}
