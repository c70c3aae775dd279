import os
import psycopg2

def handle(event, context):

    try:
        password = read_secret('db-password')

        # Connect using the host from the db_host env var
        # and the password from the mounted secret.
        conn = psycopg2.connect(
            dbname='main',
            user='postgres',
            port=5432,
            host=os.getenv('db_host'),
            password=password
        )
    except Exception as e:
        print("DB error {}".format(e))
        return {
            "statusCode": 500,
            "body": e
        }

    cur = conn.cursor()
    cur.execute("""SELECT * from users;""")
    rows = cur.fetchall()

    return {
        "statusCode": 200,
        "body": rows
    }

def read_secret(name):
    with open("/var/openfaas/secrets/" + name, "r") as f:
        return f.read().strip()
