// getaddrinfo() and getnameinfo() of whatever C library this is linked with: musl in the tests.
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define MAX 4096

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void fail(int error)
{
    int none = error == EAI_NONAME;
#ifdef EAI_NODATA
    none |= error == EAI_NODATA;
#endif
    if (none)
        puts("-");
    else
        printf("!%s\n", gai_strerror(error));
}

static void reverse(const char *address)
{
    struct sockaddr_in peer = {.sin_family = AF_INET};
    char name[NI_MAXHOST];

    inet_pton(AF_INET, address, &peer.sin_addr);
    int error = getnameinfo((void *)&peer, sizeof peer, name, sizeof name, NULL, 0, NI_NAMEREQD);
    if (error)
        fail(error);
    else
        puts(name);
}

static void forward(const char *name)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
    char *texts[MAX];
    int count = 0, error = getaddrinfo(name, NULL, &hints, &found);

    if (error) {
        fail(error);
        return;
    }
    for (struct addrinfo *one = found; one && count < MAX; one = one->ai_next) {
        char text[INET6_ADDRSTRLEN];
        const void *address = one->ai_family == AF_INET
            ? (const void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
            : (const void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
        if (inet_ntop(one->ai_family, address, text, sizeof text))
            texts[count++] = strdup(text);
    }
    qsort(texts, count, sizeof *texts, by_text);
    for (int i = 0; i < count; i++)
        printf("%s%s", i ? "," : "", texts[i]);
    putchar('\n');
    freeaddrinfo(found);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        printf("%s=", argv[i]);
        if (!strncmp(argv[i], "ptr:", 4))
            reverse(argv[i] + 4);
        else
            forward(argv[i]);
        fflush(stdout);
    }
    return 0;
}
